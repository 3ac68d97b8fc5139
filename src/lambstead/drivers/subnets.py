"""Which availability zone a subnet is in: what the operator says, else what EC2 says, wherever that is."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

log = logging.getLogger(__name__)

TIMEOUT_S = 10


class Ec2Subnets:
    """See `control.settling.Subnets`. `said` are the operator's words, `endpoint_url` gives where EC2 is now; empty for nowhere."""

    def __init__(
        self,
        said: Mapping[str, str],
        endpoint_url: Callable[[], str],
        region: str,
        access_key_id: str,
        secret_access_key: str,
    ) -> None:
        self._said = said
        self._endpoint_url = endpoint_url
        self._region = region
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key

    async def zones(self, subnets: Sequence[str]) -> Mapping[str, str]:
        said = {subnet: self._said[subnet] for subnet in subnets if subnet in self._said}
        others = [subnet for subnet in subnets if subnet not in said]
        endpoint_url = self._endpoint_url() if others else ""
        if not endpoint_url:
            return said
        return {**await asyncio.to_thread(self._asked, endpoint_url, others), **said}

    def _asked(self, endpoint_url: str, subnets: Sequence[str]) -> Mapping[str, str]:
        """Of those that EC2 has; that it has none of them, or cannot be reached, is no reason to do without a provider."""
        import botocore.config
        import botocore.session
        from botocore.exceptions import BotoCoreError, ClientError

        client: Any = botocore.session.Session().create_client(  # Any: botocore's clients are made at run time
            "ec2",
            region_name=self._region,
            endpoint_url=endpoint_url,
            aws_access_key_id=self._access_key_id,
            aws_secret_access_key=self._secret_access_key,
            config=botocore.config.Config(
                connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"max_attempts": 0}
            ),
        )
        try:
            # A filter, because naming one that does not exist is an error for all of them.
            answer = client.describe_subnets(Filters=[{"Name": "subnet-id", "Values": list(subnets)}])
        except (BotoCoreError, ClientError) as exc:
            log.warning("subnets-unknown", extra={"subnets": list(subnets), "because": str(exc)})
            return {}
        finally:
            client.close()
        return {each["SubnetId"]: each["AvailabilityZone"] for each in answer["Subnets"]}
