"""AWS's service models as botocore ships them: the only source of names, shapes, limits and status codes.

Only the models of the pinned botocore are read. A directory of the user's (`~/.aws/models`, `AWS_DATA_PATH`) is left out on
purpose: it serves clients, and a server whose specification depends on the home directory it was started from has none.
"""

import functools
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from botocore.model import ServiceModel


class UnknownService(LookupError):
    """No model of that name ships with botocore; a mistake in our configuration, never in a request."""


class Model(ServiceModel):
    """botocore's model, with the one trait that it reads and drops: whether an error is the service's fault."""

    def __init__(self, description: Mapping[str, Any], service: str) -> None:
        """`description` is the parsed service-2.json."""
        super().__init__(description, service)
        self._faults = frozenset(name for name, shape in description["shapes"].items() if shape.get("fault"))

    def is_fault(self, shape: str) -> bool:
        """Whether an error shape is marked as ours to repair (5xx unless a status is modelled), not the caller's."""
        return shape in self._faults


@functools.cache
def load(service: str) -> Model:
    """The model of a service by botocore's name for it (`lambda`, `logs`, `apigateway`), loaded once per process."""
    loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    try:
        description = loader.load_service_model(service, "service-2")
    except UnknownServiceError as exc:
        raise UnknownService(f"botocore has no service model called {service!r}") from exc
    return Model(description, service)


def protocol(model: ServiceModel) -> str:
    """The wire protocol that clients of the pinned botocore speak to this service, for example `rest-json`."""
    return str(model.metadata["protocol"])


def signing_name(model: ServiceModel) -> str:
    """The service name in the credential scope of signed requests. Several services may share one."""
    return str(model.signing_name)


def target_prefix(model: ServiceModel) -> str | None:
    """What stands before the dot of `X-Amz-Target`; None for protocols that route by path."""
    return model.metadata.get("targetPrefix")
