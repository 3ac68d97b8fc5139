#!/usr/bin/env bash
# Start one execution, wait for its end, show what became of it: run.sh FUNCTION_NAME [ORDER_ID]
# Exits with 0 if the execution succeeded and its result is that of the order.
set -euo pipefail

name=${1:?usage: run.sh FUNCTION_NAME [ORDER_ID]}
order=${2:-order-123}
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
printf '{"orderId": "%s"}' "$order" >"$scratch/event.json"

echo "== Start (asynchronous)"
arn=$(aws lambda invoke --function-name "$name" --qualifier '$LATEST' --invocation-type Event \
    --payload "fileb://$scratch/event.json" --query DurableExecutionArn --output text "$scratch/answer")
echo "$arn"

echo "== Wait for the end"
status=RUNNING
for _ in $(seq "${WAIT_SECONDS:-60}"); do
    now=$(aws lambda get-durable-execution --durable-execution-arn "$arn" --query Status --output text)
    [ "$now" = "$status" ] || echo "$now"
    status=$now
    [ "$status" = RUNNING ] || break
    sleep 1
done

echo "== History"
aws lambda get-durable-execution-history --durable-execution-arn "$arn" \
    --query 'Events[].{"1 Id":EventId,"2 Event":EventType,"3 Name":Name,"4 Time":EventTimestamp}' --output table

echo "== Logs"
aws logs filter-log-events --log-group-name "/aws/lambda/$name" --filter-pattern "{ $.executionArn = \"$arn\" }" \
    --query 'events[].message' --output text | tr '\t' '\n'

echo "== Result"
result=$(aws lambda get-durable-execution --durable-execution-arn "$arn" --query Result --output text)
echo "$result"
if [ "$status" != SUCCEEDED ]; then
    aws lambda get-durable-execution --durable-execution-arn "$arn" --query Error >&2
    echo "The execution did not succeed: $status" >&2
    exit 1
fi
case $result in
*'"orderId": "'"$order"'"'* | *'"orderId":"'"$order"'"'*) ;;
*)
    echo "This is not the result for $order." >&2
    exit 1
    ;;
esac
