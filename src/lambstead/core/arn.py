"""Names of Lambda resources: where we are (`Realm`) and what a caller means by a function name (`FunctionRef`).

Callers may name a function in five ways, each with an optional qualifier: `F`, `function:F`, `<account>:function:F`,
`<region>:<account>:function:F` as clients abbreviate it, and the full ARN (Lambda API reference, parameter FunctionName).
"""

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from lambstead.core.errors import AccessDenied, InvalidParameterValue, ResourceNotFound, ValidationError

LATEST = "$LATEST"
LATEST_PUBLISHED = "$LATEST.PUBLISHED"

_FUNCTION = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*)?:lambda:)?"
    r"(?:(?P<region>(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?"
    r"(?:(?P<account>\d{12}):)?"
    r"(?:function:)?"
    r"(?P<name>[a-zA-Z0-9-_.]+)"
    r"(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
_CAPACITY_PROVIDER = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):capacity-provider:)?(?P<name>[a-zA-Z0-9-_]+)"
)
_TAGGABLE = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):"
    r"(?P<kind>function|capacity-provider|event-source-mapping|layer|code-signing-config):"
    r"(?P<name>[a-zA-Z0-9-_]+)(?::(?P<suffix>.+))?"
)


@dataclass(frozen=True, slots=True)
class Realm:
    """The account and region that one Lambstead serves; makes every ARN in it."""

    region: str = "us-east-1"
    account: str = "000000000000"

    @property
    def vpc_id(self) -> str:
        """The one VPC of the account, in which every subnet is taken to be until there is an EC2 to ask."""
        return "vpc-" + hashlib.sha256(f"{self.account}:{self.region}".encode()).hexdigest()[:17]

    def function_arn(self, name: str, qualifier: str | None = None) -> str:
        """The function's ARN, qualified when a qualifier is given."""
        suffix = f":{qualifier}" if qualifier else ""
        return f"arn:aws:lambda:{self.region}:{self.account}:function:{name}{suffix}"

    def code_signing_config_arn(self, config_id: str) -> str:
        """The code signing config's ARN."""
        return f"arn:aws:lambda:{self.region}:{self.account}:code-signing-config:{config_id}"

    def capacity_provider_arn(self, name: str) -> str:
        """The capacity provider's ARN."""
        return f"arn:aws:lambda:{self.region}:{self.account}:capacity-provider:{name}"

    def layer_arn(self, name: str, number: int | None = None) -> str:
        """The layer's ARN, or that of one of its versions."""
        suffix = f":{number}" if number is not None else ""
        return f"arn:aws:lambda:{self.region}:{self.account}:layer:{name}{suffix}"

    def log_group_arn(self, name: str) -> str:
        """The ARN of a log group, without the `:*` that older members of the Logs API add."""
        return f"arn:aws:logs:{self.region}:{self.account}:log-group:{name}"

    def event_source_mapping_arn(self, mapping_id: str) -> str:
        """The event source mapping's ARN."""
        return f"arn:aws:lambda:{self.region}:{self.account}:event-source-mapping:{mapping_id}"

    def schedule_arn(self, group: str, name: str) -> str:
        """The schedule's ARN."""
        return f"arn:aws:scheduler:{self.region}:{self.account}:schedule/{group}/{name}"

    def schedule_group_arn(self, group: str) -> str:
        """The schedule group's ARN."""
        return f"arn:aws:scheduler:{self.region}:{self.account}:schedule-group/{group}"


class FunctionRef(NamedTuple):
    """A function as a caller named it; `qualifier` is None when the caller gave none."""

    name: str
    qualifier: str | None = None

    @classmethod
    def parse(cls, text: str, realm: Realm, qualifier: str | None = None) -> "FunctionRef":
        """What `text`, and the separate Qualifier parameter, name in `realm`.

        Raises ResourceNotFound for another region, AccessDenied for another account, InvalidParameterValue when name and
        parameter carry different qualifiers (texts as recorded from AWS).
        """
        found = _FUNCTION.fullmatch(text)
        if found is None:
            raise ValidationError(
                f"1 validation error detected: Value '{text}' at 'functionName' is not a function name or ARN"
            )
        region, account = found["region"], found["account"]
        if region and region != realm.region:
            raise ResourceNotFound(f"Functions from '{region}' are not reachable in this region ('{realm.region}')")
        if account and account != realm.account:
            raise AccessDenied(
                f"The function belongs to account {account}; this endpoint serves account {realm.account}"
            )
        derived = found["qualifier"]
        if derived and qualifier and derived != qualifier:
            raise InvalidParameterValue(
                "The derived qualifier from the function name does not match the specified qualifier."
            )
        return cls(found["name"], qualifier or derived)

    @property
    def names_alias(self) -> bool:
        """True if the qualifier has the form of an alias name: it is no number and has no `$`."""
        return self.qualifier is not None and not self.qualifier.isdecimal() and "$" not in self.qualifier

    def arn(self, realm: Realm) -> str:
        """The ARN of what was named, with the qualifier as given."""
        return realm.function_arn(self.name, self.qualifier)


def capacity_provider_name(text: str, realm: Realm) -> str:
    """The name in a capacity provider's name or ARN. Raises ResourceNotFound for an ARN of another region or account."""
    found = _CAPACITY_PROVIDER.fullmatch(text)
    if (
        found is None
        or (found["region"] and found["region"] != realm.region)
        or (found["account"] and found["account"] != realm.account)
    ):
        raise ResourceNotFound(f"Capacity provider not found: {text}")
    return found["name"]


@dataclass(frozen=True, slots=True)
class TaggedResource:
    """A resource that can carry tags, as an ARN names it."""

    kind: str
    """`function`, `capacity-provider`, `event-source-mapping`, `layer` or `code-signing-config`."""
    name: str
    arn: str

    @classmethod
    def parse(cls, arn: str, realm: Realm) -> "TaggedResource":
        """Raises InvalidParameterValue for aliases and versions, which cannot be tagged, and ResourceNotFound for other realms."""
        found = _TAGGABLE.fullmatch(arn)
        elsewhere = found is None or found["region"] != realm.region or found["account"] != realm.account
        if found is None or elsewhere or (found["suffix"] and found["kind"] not in ("function", "layer")):
            raise ResourceNotFound(f"The resource {arn} is not reachable in region {realm.region}")
        if found["kind"] == "function" and found["suffix"]:
            raise InvalidParameterValue(
                "Tags on function aliases and versions are not supported. Please specify a function ARN."
            )
        return cls(found["kind"], found["name"], arn)
