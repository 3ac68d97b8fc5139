"""Where functions may connect to: the egress policy of a capacity provider, as its security groups say.

Lambstead has no VPC, so a security group has no rules here that could be read; the operator says what each group stands for
(setting `security_group_egress`). As on AWS, groups add up: the most permissive one counts. A provider without a group that is named has the
default (setting `egress`), and so have functions without a capacity provider.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Egress = Literal["none", "nat", "host"]
"""`none`: nowhere. `nat`: out through address translation, from a network of the environment's own; not to this machine's loopback. `host`: wherever this
machine can connect to."""

POLICIES: tuple[Egress, ...] = get_args(Egress)
"""From the strictest to the most permissive."""


@dataclass(frozen=True, slots=True)
class EgressRules:
    """What the operator decided."""

    default: Egress = "host"
    by_security_group: Mapping[str, Egress] = field(default_factory=dict)

    @property
    def enforced(self) -> tuple[Egress, ...]:
        """The policies by which some function is kept from connecting, which not every isolation level can enforce."""
        used = {self.default, *self.by_security_group.values()}
        return tuple(each for each in POLICIES if each in used and each != "host")

    def policy(self, security_groups: Iterable[str]) -> Egress:
        """The policy of a provider with these groups."""
        named = [self.by_security_group[group] for group in security_groups if group in self.by_security_group]
        return max(named, key=POLICIES.index) if named else self.default


def parse_rules(text: str) -> dict[str, Egress]:
    """`sg-1=none,sg-2=host` as a mapping. Raises ValueError with a sentence about the part that is wrong."""
    rules: dict[str, Egress] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        group, _, policy = (each.strip() for each in part.partition("="))
        found = next((each for each in POLICIES if each == policy), None)
        if found is None or not group.startswith("sg-"):
            raise ValueError(f"{part!r} is not of the form sg-0123=none, sg-0123=nat or sg-0123=host")
        rules[group] = found
    return rules
