"""Code signing configs: whose signatures a function's packages must carry, and what happens to a package without one.

No package that arrives here can be verified: AWS Signer, which holds the certificates, is not part of Lambstead. So every package counts as
unsigned, `Enforce` refuses every deployment, as AWS does with unsigned packages, and `Warn` lets it pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lambstead.core.errors import DomainError

WARN = "Warn"
ENFORCE = "Enforce"


class CodeSigningConfigNotFound(DomainError):
    """A call on a function names a code signing config that does not exist."""

    shape = "CodeSigningConfigNotFoundException"


class CodeVerificationFailed(DomainError):
    """The package is not signed by one of the publishers, and the config says to refuse such packages."""

    shape = "CodeVerificationFailedException"


@dataclass(frozen=True, slots=True)
class CodeSigningConfig:
    """A code signing config as stored."""

    id: str
    """`csc-` and 17 letters or digits."""
    publishers: Mapping[str, Any]
    """AllowedPublishers as given."""  # Any: a document of the API
    untrusted: str
    """`Warn` or `Enforce`: what happens to a package that is not signed by a publisher."""
    last_modified: str
    description: str = ""


def config_not_found(arn: str) -> CodeSigningConfigNotFound:
    """The refusal of a call on a function, in AWS's words."""
    return CodeSigningConfigNotFound(
        "The code signing configuration cannot be found. Check that the provided configuration is not deleted: "
        + f"{arn}."
    )


def refuse_unsigned(config: CodeSigningConfig | None) -> None:
    """Raise CodeVerificationFailed if the function's config demands a signature, which no package here has."""
    if config is not None and config.untrusted == ENFORCE:
        raise CodeVerificationFailed(
            "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is "
            "not configured to accept. Check the provided signature for unsigned."
        )
