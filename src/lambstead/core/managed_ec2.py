"""Managed instances as EC2 shows them: members, states, and which filters match.

Every instance carries the tag `aws:lambda:capacity-provider` with its provider's ARN, and says that Lambda operates it (reference on managed instances, §17). AWS hides
them unless the request or the account's setting asks for managed resources; here they are always visible. What a process on this machine does not
have, a private address above all, is made from its id and stays the same.
"""

import fnmatch
import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lambstead.core.capacity import CapacityProvider
from lambstead.core.fleet import Instance, InstancePhase

PROVIDER_TAG = "aws:lambda:capacity-provider"
OPERATOR = "scaler.lambda.amazonaws.com"
"""The value of `ec2:ManagedResourceOperator` in AWS's operator policy."""
_STATES = {
    InstancePhase.LAUNCHING: (0, "pending"),
    InstancePhase.RUNNING: (16, "running"),
    InstancePhase.TERMINATING: (32, "shutting-down"),
}
TERMINATED = (48, "terminated")
_NETWORK = ipaddress.IPv4Network("10.0.0.0/8")


@dataclass(frozen=True, slots=True)
class ManagedInstance:
    """One instance in EC2's words."""

    id: str
    state_code: int
    state: str
    type: str
    architecture: str
    vcpus: int
    zone: str
    subnet: str
    security_groups: tuple[str, ...]
    private_ip: str
    launched_at: datetime
    tags: Mapping[str, str]

    @classmethod
    def of(
        cls, instance: Instance, provider: CapacityProvider | None, arn: str, region: str, *, is_terminated: bool
    ) -> "ManagedInstance":
        """`provider` is None if it is gone already; `arn` is still its own."""
        code, state = TERMINATED if is_terminated else _STATES[instance.phase]
        subnets = dict(reversed(provider.subnets_by_zone(region))) if provider is not None else {}
        return cls(
            id=instance.id,
            state_code=code,
            state=state,
            type=instance.type.name,
            architecture=instance.type.architecture,
            vcpus=instance.type.vcpus,
            zone=instance.zone,
            subnet="" if is_terminated else subnets.get(instance.zone, ""),
            security_groups=provider.security_groups if provider is not None and not is_terminated else (),
            private_ip="" if is_terminated else _address(instance.id),
            launched_at=instance.since.astimezone(UTC),
            tags={PROVIDER_TAG: arn},
        )

    @property
    def launch_time(self) -> str:
        """As EC2 writes it."""
        return self.launched_at.strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def values(self, name: str) -> Sequence[str]:
        """What a filter of this name compares with; empty for what the instance does not have."""
        if name.startswith("tag:"):
            return [self.tags[key]] if (key := name[4:]) in self.tags else []
        facts: dict[str, Iterable[str]] = {
            "instance-id": (self.id,),
            "instance-state-name": (self.state,),
            "instance-state-code": (str(self.state_code),),
            "instance-type": (self.type,),
            "architecture": (self.architecture,),
            "availability-zone": (self.zone,),
            "subnet-id": (self.subnet,),
            "private-ip-address": (self.private_ip,),
            "launch-time": (self.launch_time,),
            "instance.group-id": self.security_groups,
            "tag-key": self.tags,
            "operator.managed": ("true",),
            "operator.principal": (OPERATOR,),
        }
        return [value for value in facts.get(name, ()) if value]


def matches(instance: ManagedInstance, filters: Mapping[str, Sequence[str]]) -> bool:
    """True if each filter has a value, which may have the wildcards * and ?, that the instance has too."""
    return all(
        any(fnmatch.fnmatchcase(has, _pattern(wanted)) for has in instance.values(name) for wanted in values)
        for name, values in filters.items()
    )


def _pattern(wanted: str) -> str:
    """EC2 has no sets of characters: a bracket is one."""
    return wanted.replace("[", "[[]")


def _address(id: str) -> str:
    digits = int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big")
    return str(_NETWORK[digits % (_NETWORK.num_addresses - 2) + 1])
