"""Layers: archives that functions share, published as numbered versions and laid over one another at `/opt`.

A version never changes and its number is never given out again. A function keeps what it referenced: it holds the package of each layer itself,
so deleting a layer version takes it from nobody. Texts are AWS's, recorded or quoted from users' reports, where nothing else is said.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lambstead.core.account import UNZIPPED_CODE_BYTES
from lambstead.core.arn import Realm
from lambstead.core.configurations import CodePackage, Layer
from lambstead.core.errors import (
    AccessDenied,
    InvalidParameterValue,
    PreconditionFailed,
    ResourceConflict,
    ResourceNotFound,
)
from lambstead.core.policies import MAX_POLICY_BYTES, PolicyLengthExceeded, compact

MAX_LAYERS = 5

_LAYER = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9-_]+)(?::(?P<number>\d+))?"
)


@dataclass(frozen=True, slots=True)
class LayerPolicy:
    """Who may use a layer version: statements in the order of their addition."""

    revision_id: str
    statements: tuple[Mapping[str, Any], ...]  # Any: IAM policy documents


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """One version of a layer as stored. Optional members are None when the publisher did not give them."""

    layer: str
    number: int
    code: CodePackage
    created: str
    description: str = ""
    license: str | None = None
    runtimes: tuple[str, ...] | None = None
    architectures: tuple[str, ...] | None = None
    policy: LayerPolicy | None = None

    def suits(self, runtime: str | None, architecture: str | None) -> bool:
        """True when the version declares itself compatible with both, where they are given."""
        return (runtime is None or runtime in (self.runtimes or ())) and (
            architecture is None or architecture in (self.architectures or ())
        )


@dataclass(frozen=True, slots=True)
class LayerRef:
    """A layer version as a function's configuration names it."""

    region: str
    account: str
    name: str
    number: int
    arn: str

    @classmethod
    def parse(cls, arn: str) -> "LayerRef":
        """Raises ResourceNotFound for AWS's own layers (`awslayer`), which nobody outside AWS has."""
        found = _LAYER.fullmatch(arn)
        if found is None or found["number"] is None:
            raise ResourceNotFound(f"Layer version {arn} does not exist.")
        return cls(found["region"], found["account"], found["name"], int(found["number"]), arn)

    @property
    def layer(self) -> tuple[str, str, str]:
        return self.region, self.account, self.name


def layer_name(text: str, realm: Realm) -> str:
    """The name in a layer's name or ARN. Raises ResourceNotFound for another region, AccessDenied for another account."""
    found = _LAYER.fullmatch(text)
    if found is None:
        return text
    if found["region"] != realm.region:
        raise ResourceNotFound("The resource you requested does not exist.")
    if found["account"] != realm.account:
        raise AccessDenied(f"The layer belongs to account {found['account']}; this endpoint serves {realm.account}")
    return found["name"]


def check_number(number: int) -> None:
    """Raise InvalidParameterValue for a version number that no layer has."""
    if number < 1:
        raise InvalidParameterValue("Layer Version Cannot be less than 1")


def referenced(arns: Sequence[str], realm: Realm) -> list[LayerRef]:
    """The layer versions that a function's configuration names. Raises for what can be said without looking them up."""
    if len(arns) > MAX_LAYERS:
        raise InvalidParameterValue(f"Cannot reference more than {MAX_LAYERS} layers.")
    try:
        refs = [LayerRef.parse(arn) for arn in arns]
    except ResourceNotFound as exc:
        raise InvalidParameterValue(exc.message) from exc
    for ref in refs:
        if ref.region != realm.region:
            raise InvalidParameterValue(
                "Layers are not in the same region as the function. "
                f"Layers are expected to be in region {realm.region}."
            )
    _refuse_same_layer(refs)
    for ref in refs:
        if ref.account != realm.account:
            raise AccessDenied(
                f"User: arn:aws:iam::{realm.account}:root is not authorized to perform: lambda:GetLayerVersion on resource: "
                f"{ref.arn} because no resource-based policy allows the lambda:GetLayerVersion action"
            )
    return refs


def _refuse_same_layer(refs: Sequence[LayerRef]) -> None:
    seen: dict[tuple[str, str, str], LayerRef] = {}
    for ref in refs:
        first = seen.setdefault(ref.layer, ref)
        if first is not ref:
            raise InvalidParameterValue(
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{first.arn} and {ref.arn} are versions of the same layer."
            )


def as_layer(ref: LayerRef, version: LayerVersion | None) -> Layer:
    """What a function keeps of a layer version. Raises InvalidParameterValue when there is no such version."""
    if version is None:
        raise InvalidParameterValue(f"Layer version {ref.arn} does not exist.")
    return Layer(ref.arn, version.code)


def check_unzipped(total_bytes: int) -> None:
    """Raise InvalidParameterValue when a function and its layers are too large together."""
    if total_bytes >= UNZIPPED_CODE_BYTES:
        raise InvalidParameterValue(
            f"Function code combined with layers exceeds the maximum allowed size of {UNZIPPED_CODE_BYTES} bytes. "
            f"The actual size is {total_bytes} bytes."
        )


# --- permissions --------------------------------------------------------------------------------------------------------------


def statement(sid: str, action: str, principal: str, organization: str | None, arn: str) -> dict[str, Any]:
    """A policy statement in AWS's form and order."""
    if principal == "*":
        who: object = "*"
    elif principal.isdecimal():
        who = {"AWS": f"arn:aws:iam::{principal}:root"}
    else:
        who = {"AWS": principal}
    document: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Principal": who, "Action": action, "Resource": arn}
    if organization:
        document["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": organization}}
    return document


def with_statement(
    policy: LayerPolicy | None, added: Mapping[str, Any], given: str | None, revision_id: str
) -> LayerPolicy:
    """The policy with one statement more; `given` is the revision that the caller names. Raises AWS's refusals."""
    refuse_stale_policy(policy, given)
    statements = policy.statements if policy else ()
    if any(each["Sid"] == added["Sid"] for each in statements):
        raise ResourceConflict(
            f"The statement id ({added['Sid']}) provided already exists. "
            "Please provide a new statement id, or remove the existing statement."
        )
    return LayerPolicy(revision_id, (*statements, added))


def without_statement(policy: LayerPolicy | None, sid: str, given: str | None, revision_id: str) -> LayerPolicy | None:
    """The policy without a statement; None with the last one gone. Raises AWS's refusals."""
    if policy is None:
        raise ResourceNotFound("No policy is associated with the given resource.")
    left = tuple(each for each in policy.statements if each["Sid"] != sid)
    if len(left) == len(policy.statements):
        raise ResourceNotFound(f"Statement {sid} is not found in resource policy.")
    refuse_stale_policy(policy, given)
    return LayerPolicy(revision_id, left) if left else None


def refuse_stale_policy(policy: LayerPolicy | None, given: str | None) -> None:
    """Raise PreconditionFailed if the caller names a revision that is not the policy's."""
    if given is not None and given != (policy.revision_id if policy else None):
        raise PreconditionFailed(
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetLayerPolicy API to retrieve the latest Revision Id"
        )


def policy_document(policy: LayerPolicy) -> str:
    """The policy as AWS writes it. Raises PolicyLengthExceeded for more than 20 KB."""
    document = compact({"Version": "2012-10-17", "Id": "default", "Statement": list(policy.statements)})
    size = len(document.encode())
    if size > MAX_POLICY_BYTES:
        raise PolicyLengthExceeded(f"The final policy size ({size}) is bigger than the limit ({MAX_POLICY_BYTES}).")
    return document
