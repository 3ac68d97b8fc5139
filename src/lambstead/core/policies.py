"""Resource-based policies: who may use a function, a version or an alias.

There is one policy per qualifier, and none for `$LATEST`. AddPermission and RemovePermission change it statement by statement,
PutResourcePolicy and DeleteResourcePolicy as a whole; both see the same document. Without a statement there is no policy.

Sources: statements, principals, texts and revision ids as recorded from AWS (reference on the Lambda API, §7); PutResourcePolicy from the service
model, its rules for documents from the grammar of IAM policies.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lambstead.core.arn import LATEST
from lambstead.core.errors import DomainError, InvalidParameterValue, ResourceConflict, ResourceNotFound

MAX_POLICY_BYTES = 20_480

Document = Mapping[str, Any]  # Any: JSON as the grammar of IAM policies allows it

_SERVICE = re.compile(r"[a-z0-9][a-z0-9.-]*\.(amazonaws\.com(\.cn)?|amazon\.com)")
_IDENTITY = re.compile(r"arn:aws[a-z-]*:(iam|sts)::(\d{12}|cloudfront):\S+")
_ACCOUNT = re.compile(r"\d{12}")
_SID = re.compile(r"[a-zA-Z0-9-_.]{1,100}")
_VERSIONS = ("2012-10-17", "2008-10-17")
_ELEMENTS = frozenset({"Sid", "Effect", "Principal", "Action", "Resource", "Condition"})


class PolicyLengthExceeded(DomainError):
    """The policy would be larger than AWS allows."""

    shape = "PolicyLengthExceededException"


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission as AddPermission asks for it; None for what was not given."""

    sid: str
    action: str
    principal: str
    source_arn: str | None = None
    source_account: str | None = None
    event_source_token: str | None = None
    organization: str | None = None
    url_auth_type: str | None = None
    via_function_url: bool | None = None

    def statement(self, resource_arn: str) -> Document:
        """The policy statement on the resource. Raises InvalidParameterValue for a principal of no known form."""
        statement: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Principal": _principal(self.principal, resource_arn.split(":")[1]),
            "Action": self.action,
            "Resource": resource_arn,
        }
        condition = self._condition()
        if condition:
            statement["Condition"] = condition
        return statement

    def _condition(self) -> Document:
        equals = {
            "AWS:SourceAccount": self.source_account,
            "lambda:EventSourceToken": self.event_source_token,
            "lambda:FunctionUrlAuthType": self.url_auth_type,
            "aws:PrincipalOrgID": self.organization,
        }
        via_url = None if self.via_function_url is None else str(self.via_function_url).lower()
        operators = {
            "StringEquals": equals,
            "ArnLike": {"AWS:SourceArn": self.source_arn},
            "Bool": {"lambda:InvokedViaFunctionUrl": via_url},
        }
        given = {
            operator: {key: value for key, value in keys.items() if value is not None}
            for operator, keys in operators.items()
        }
        return {operator: keys for operator, keys in given.items() if keys}


def _principal(text: str, partition: str) -> str | Document:
    """The Principal element. Whether an identity exists is not checked: there is no IAM here to ask."""
    if text == "*":
        return text
    if _ACCOUNT.fullmatch(text):
        return {"AWS": f"arn:{partition}:iam::{text}:root"}
    if _IDENTITY.fullmatch(text):
        return {"AWS": text}
    if _SERVICE.fullmatch(text):
        return {"Service": text}
    raise InvalidParameterValue("The provided principal was invalid. Please check the principal and try again.")


@dataclass(frozen=True, slots=True)
class ResourcePolicy:
    """The policy of one qualifier of a function."""

    function: str
    qualifier: str
    """A version or an alias; empty for the unqualified function."""
    revision_id: str
    document: Document

    @classmethod
    def empty(cls, function: str, qualifier: str) -> "ResourcePolicy":
        """What AddPermission starts from; never stored."""
        return cls(function, qualifier, "", {"Version": "2012-10-17", "Id": "default", "Statement": []})

    @property
    def statements(self) -> Sequence[Document]:
        statements: Sequence[Document] = self.document["Statement"]
        return statements

    @property
    def text(self) -> str:
        """The document as the API carries it."""
        return compact(self.document)

    def adding(self, statement: Document, revision_id: str) -> "ResourcePolicy":
        """The policy with one statement more. Raises ResourceConflict for a Sid that is taken, PolicyLengthExceeded."""
        if any(other.get("Sid") == statement["Sid"] for other in self.statements):
            raise ResourceConflict(
                f"The statement id ({statement['Sid']}) provided already exists. Please provide a new statement id, "
                "or remove the existing statement."
            )
        return self._with([*self.statements, statement], revision_id)

    def removing(self, sid: str, revision_id: str) -> "ResourcePolicy | None":
        """The policy without the statement; None when it was the last one. Raises ResourceNotFound."""
        rest = [statement for statement in self.statements if statement.get("Sid") != sid]
        if len(rest) == len(self.statements):
            raise ResourceNotFound(f"Statement {sid} is not found in resource policy.")
        return self._with(rest, revision_id) if rest else None

    def allows_anybody(self, action: str, keys: Mapping[str, str]) -> bool:
        """Whether a statement lets everybody do it, unless another denies it. `keys` are the condition keys of the request."""
        return any(
            statement["Effect"] == "Allow"
            and _is_anybody(statement)
            and _is_met(statement, action, keys, unknown=False)
            for statement in self.statements
        )

    def denies(self, action: str, keys: Mapping[str, str], caller: str | None = None) -> bool:
        """Whether a statement denies it to everybody or to this caller, an ARN."""
        return any(
            statement["Effect"] == "Deny"
            and (_is_anybody(statement) or (caller is not None and caller in _identities(statement)))
            and _is_met(statement, action, keys, unknown=True)
            for statement in self.statements
        )

    def _with(self, statements: Sequence[Document], revision_id: str) -> "ResourcePolicy":
        changed = replace(self, document={**self.document, "Statement": statements}, revision_id=revision_id)
        size = len(changed.text.encode())
        if size > MAX_POLICY_BYTES:
            raise PolicyLengthExceeded(f"The final policy size ({size}) is bigger than the limit ({MAX_POLICY_BYTES}).")
        return changed


def _is_anybody(statement: Document) -> bool:
    return statement["Principal"] == "*" or "*" in _identities(statement)


def _identities(statement: Document) -> Sequence[str]:
    principal = statement["Principal"]
    return _texts(principal, "AWS") if isinstance(principal, dict) and "AWS" in principal else []


def _is_met(statement: Document, action: str, keys: Mapping[str, str], *, unknown: bool) -> bool:
    """Whether the statement speaks of the action under its conditions; `unknown` stands for conditions that cannot be judged here."""
    if not any(_is_like(pattern.lower(), action.lower()) for pattern in _texts(statement, "Action")):
        return False
    known = {name.lower(): value for name, value in keys.items()}
    return all(
        _holds(operator, wanted, known.get(name.lower()), unknown=unknown)
        for operator, condition in statement.get("Condition", {}).items()
        for name, wanted in condition.items()
    )


def _holds(operator: str, wanted: object, value: str | None, *, unknown: bool) -> bool:
    texts = [str(text) for text in (wanted if isinstance(wanted, list) else [wanted])]
    if value is None:
        return unknown
    match operator.removesuffix("IfExists"):
        case "StringEquals":
            return value in texts
        case "StringNotEquals":
            return value not in texts
        case "StringLike":
            return any(_is_like(text, value) for text in texts)
        case "StringEqualsIgnoreCase" | "Bool":
            return value.lower() in [text.lower() for text in texts]
        case _:
            return unknown


def _is_like(pattern: str, text: str) -> bool:
    """IAM's wildcards: `*` for anything, `?` for one character."""
    parts = [{"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern]
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def compact(document: Document) -> str:
    """A policy or statement as AWS writes it: JSON without blanks."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def refuse_latest(qualifier: str | None) -> None:
    """Raise for `$LATEST`, which can have no policy."""
    if qualifier == LATEST:
        raise InvalidParameterValue("We currently do not support adding policies for $LATEST.")


# --- documents that callers write ------------------------------------------------------------------------------------------


def parsed(text: str, resource_arn: str) -> Document:
    """The policy document in `text` for the resource with this ARN, its Statement always a list. Raises InvalidParameterValue."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _malformed(f"it is not JSON ({exc})") from exc
    if not isinstance(document, dict):
        raise _malformed("it is not a JSON object")
    unknown = sorted(set(document) - {"Version", "Id", "Statement"})
    if unknown:
        raise _malformed(f"it has an element {unknown[0]}")
    if document.get("Version", _VERSIONS[0]) not in _VERSIONS:
        raise _malformed(f"Version is not {' or '.join(_VERSIONS)}")
    if not isinstance(document.get("Id", ""), str):
        raise _malformed("Id is not a string")
    statements = document.get("Statement")
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not statements:
        raise _malformed("it has no Statement")
    for statement in statements:
        _check_statement(statement, resource_arn)
    sids = [statement["Sid"] for statement in statements if "Sid" in statement]
    if len(sids) != len(set(sids)):
        raise _malformed("two statements have the same Sid")
    return {**document, "Statement": statements}


def _check_statement(statement: object, resource_arn: str) -> None:
    if not isinstance(statement, dict):
        raise _malformed("a statement is not a JSON object")
    unknown = sorted(set(statement) - _ELEMENTS)
    if unknown:
        raise _malformed(f"a statement has an element {unknown[0]}")
    if "Sid" in statement and not (isinstance(statement["Sid"], str) and _SID.fullmatch(statement["Sid"])):
        raise _malformed("a Sid is not 1 to 100 letters, digits, '-', '_' or '.'")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise _malformed("the Effect of a statement is neither Allow nor Deny")
    _check_principal(statement.get("Principal"), resource_arn)
    for action in _texts(statement, "Action"):
        if action != "*" and not re.fullmatch(r"lambda:[a-zA-Z*?]+", action):
            raise _malformed(f"the Action {action} is none of Lambda's")
    for resource in _texts(statement, "Resource"):
        if resource != resource_arn:
            raise _malformed(f"the Resource {resource} is not the resource of the policy, {resource_arn}")
    condition = statement.get("Condition", {})
    if not isinstance(condition, dict) or not all(isinstance(keys, dict) for keys in condition.values()):
        raise _malformed("a Condition is not a map of operators to maps of keys")


def _check_principal(principal: object, resource_arn: str) -> None:
    """Raise unless it is `*`, or a map of AWS, Service or Federated to one or more principals of a known form."""
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal or set(principal) - {"AWS", "Service", "Federated"}:
        raise _malformed("a statement has no Principal, or one of an unknown kind")
    for kind in principal:
        for text in _texts(principal, kind):
            if kind != "Federated":
                _principal(text, resource_arn.split(":")[1])


def _texts(owner: Mapping[str, Any], element: str) -> list[str]:
    """An element that is a string or a list of strings, as a list. Raises InvalidParameterValue for anything else, or nothing."""
    value = owner.get(element)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _malformed(f"{element} is missing, or neither a string nor a list of strings")
    return texts


def _malformed(because: str) -> InvalidParameterValue:
    return InvalidParameterValue(f"The policy document is not valid: {because}.")
