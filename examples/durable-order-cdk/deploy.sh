#!/usr/bin/env bash
# Build the durable function and put it on Lambda, or on whatever AWS_ENDPOINT_URL names: deploy.sh typescript|python [FUNCTION_NAME]
set -euo pipefail
cd "$(dirname "$0")"

language=${1:-}
name=${2:-durable-order-$language}
role=${ROLE_ARN:-arn:aws:iam::000000000000:role/lambstead-function}
package=$PWD/build/$language.zip
mkdir -p build

case $language in
typescript)
    runtime=nodejs24.x handler=index.handler
    (cd function && npm install --no-audit --no-fund --loglevel=error && npm run --silent check && npm run --silent build -- --log-level=warning)
    content=$PWD/function/dist
    ;;
python)
    runtime=python3.13 handler=order.handler
    content=$PWD/build/python
    rm -rf "$content"
    # The SDK's only dependency, boto3, comes with the runtime.
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --target "$content" -r function-python/requirements.txt
    cp function-python/order.py "$content"
    ;;
*)
    echo "usage: deploy.sh typescript|python [FUNCTION_NAME]" >&2
    exit 2
    ;;
esac

rm -f "$package"
(cd "$content" && "${PYTHON:-python3}" -m zipfile -c "$package" ./*)

if aws lambda get-function --function-name "$name" >build/found.json 2>build/error.txt; then
    aws lambda update-function-code --function-name "$name" --zip-file "fileb://$package" >build/updated.json
    aws lambda wait function-updated-v2 --function-name "$name"
elif grep -q ResourceNotFoundException build/error.txt; then
    aws lambda create-function --function-name "$name" \
        --runtime "$runtime" --handler "$handler" --role "$role" --timeout 30 --memory-size 256 \
        --logging-config LogFormat=JSON \
        --durable-config ExecutionTimeout=300,RetentionPeriodInDays=7 \
        --zip-file "fileb://$package" >build/created.json
    aws lambda wait function-active-v2 --function-name "$name"
else
    cat build/error.txt >&2
    exit 1
fi
echo "$name is deployed ($runtime)."
