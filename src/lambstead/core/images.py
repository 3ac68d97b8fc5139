"""Container images as code: what may name one, and what its functions may not have.

An image is recorded and not run: there is no registry to ask yet. Its digest is the one that its URI names; where the URI has only a tag, the digest
is made from the URI, so that the same URI always resolves to the same image (decision 0039). Texts are AWS's where they are known.
"""

import hashlib
import re
from collections.abc import Iterable

from lambstead.core.configurations import CodePackage
from lambstead.core.errors import InvalidParameterValue

NOT_RUN = (
    "The function {arn} is a container image, which this Lambstead records but does not run yet: "
    "deploy it as a zip package to invoke it here."
)

_URI = re.compile(
    r"(?P<repository>\d{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+\.[a-z0-9.-]+(:\d+)?/[a-z0-9]+([._/-]+[a-z0-9]+)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@sha256:(?P<digest>[0-9a-f]{64}))?"
)


def image_package(uri: str) -> CodePackage:
    """The code that a URI in Amazon ECR names. Raises InvalidParameterValue for any other registry, and without tag and digest."""
    parts = _URI.fullmatch(uri)
    if parts is None or not (parts["tag"] or parts["digest"]):
        raise InvalidParameterValue(f"Source image {uri} is not valid. Provide a valid source image.")
    return CodePackage(parts["digest"] or hashlib.sha256(uri.encode()).hexdigest(), 0, image_uri=uri)


def resolved_uri(code: CodePackage) -> str:
    """The URI of exactly this image, whatever its tag names later."""
    repository = code.image_uri.partition("@")[0]
    head, slash, name = repository.rpartition("/")
    return f"{head}{slash}{name.partition(':')[0]}@sha256:{code.sha256}"


def refuse_for_new_image(members: Iterable[str]) -> None:
    """Raise if a function that is created from an image is given what the image has (users' reports of AWS's answer)."""
    if {"Runtime", "Handler", "Layers"} & set(members):
        raise InvalidParameterValue(
            "Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image."
        )


def refuse_for_image(members: Iterable[str]) -> None:
    """Raise if the configuration of an image's function is to get what the image has. The sentence on layers is AWS's (users' reports)."""
    given = set(members)
    if "Layers" in given:
        raise InvalidParameterValue("Lambda layers are not supported for functions created with container images.")
    for member in ("Runtime", "Handler"):
        if member in given:
            raise InvalidParameterValue(
                f"The {member} parameter is not supported for functions created with container images."
            )


def refuse_feature_for_image(code: CodePackage, feature: str) -> None:
    """Raise if the code is an image, for which AWS does not have this feature (users' reports, of code signing)."""
    if code.is_image:
        raise InvalidParameterValue(f"{feature} is not supported for functions created with container images.")
