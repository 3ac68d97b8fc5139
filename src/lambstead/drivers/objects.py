"""Reads code packages out of S3, wherever that is, through AWS's own client."""

import asyncio
from typing import Any

from lambstead.core.errors import InvalidParameterValue

TIMEOUT_S = 60


class S3Objects:
    """See `api.context.Objects`. `endpoint_url` is where S3 is; empty for nowhere."""

    def __init__(self, endpoint_url: str, region: str, access_key_id: str, secret_access_key: str) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._client: Any = None  # Any: botocore's clients are made at run time

    async def fetch(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        if not self._endpoint_url:
            raise _failed(
                "NoSuchBucket",
                "The specified bucket does not exist. (This Lambstead has no S3: install lambstead[companion], set endpoint_url_s3, "
                "or send the package inline, with --zip-file fileb://package.zip.)",
            )
        return await asyncio.to_thread(self._fetch, bucket, key, version, limit_bytes)

    def _fetch(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        request = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        try:
            answer = self._connected().get_object(**request)
            with answer["Body"] as body:
                if answer["ContentLength"] > limit_bytes:
                    raise InvalidParameterValue(
                        f"Code uncompressed size is greater than max allowed size of {limit_bytes}"
                    )
                return bytes(body.read())
        except ClientError as exc:
            error = exc.response["Error"]
            raise _failed(error.get("Code", "Unknown"), error.get("Message", "")) from exc
        except BotoCoreError as exc:
            raise _failed("ServiceUnavailable", str(exc)) from exc

    def _connected(self) -> Any:  # Any: see above
        if self._client is None:
            import botocore.config
            import botocore.session

            self._client = botocore.session.Session().create_client(
                "s3",
                region_name=self._region,
                endpoint_url=self._endpoint_url,
                aws_access_key_id=self._access_key_id,
                aws_secret_access_key=self._secret_access_key,
                config=botocore.config.Config(
                    connect_timeout=TIMEOUT_S,
                    read_timeout=TIMEOUT_S,
                    retries={"max_attempts": 1},
                    s3={"addressing_style": "path"},
                ),
            )
        return self._client


def _failed(code: str, message: str) -> InvalidParameterValue:
    """As AWS says it."""
    return InvalidParameterValue(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}")
