"""Versions, configurations and providers as tests start from them; every member can be named to differ."""

from dataclasses import replace
from typing import Any

from lambstead.core.arn import LATEST, LATEST_PUBLISHED
from lambstead.core.capacity import CapacityProvider, InstanceRequirements, ProviderScaling, ProviderState, Sizing
from lambstead.core.configurations import CodePackage, Configuration, Logging, ManagedInstances
from lambstead.core.functions import CREATING, FunctionVersion, Settled, State, UpdateStatus, apply
from lambstead.core.publishing import Publish, publish

AT = "2026-11-21T10:00:00.000+0000"


def standard(**changes: Any) -> Configuration:  # Any: members of Configuration
    """A standard function's configuration."""
    blank = Configuration(
        runtime="python3.13",
        handler="app.handler",
        role="arn:aws:iam::000000000000:role/r",
        code=CodePackage("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", 100),
        logging=Logging("Text", "/aws/lambda/f"),
    )
    return replace(blank, **changes)


def managed(
    provider: str = "cp", slots: int = 16, ratio: float = 2.0, **changes: Any
) -> Configuration:  # Any: see above
    """A managed function's configuration: 2 GiB, one vCPU."""
    blank = standard(
        logging=Logging("JSON", "/aws/lambda/f", "INFO", "INFO"),
        memory_mb=2048,
        managed=ManagedInstances(provider, Sizing(slots, ratio)),
    )
    return replace(blank, **changes)


def created(configuration: Configuration, function: str = "f", **changes: Any) -> FunctionVersion:  # Any: see above
    """`$LATEST` as CreateFunction leaves it."""
    blank = FunctionVersion(
        function=function,
        version=LATEST,
        configuration=configuration,
        state=State.PENDING,
        state_reason=CREATING,
        revision_id="created",
        last_modified=AT,
    )
    return replace(blank, **changes)


def latest(configuration: Configuration, function: str = "f", **changes: Any) -> FunctionVersion:  # Any: see above
    """`$LATEST` once it is settled."""
    return replace(apply(created(configuration, function), Settled("settled")), **changes)


def published(configuration: Configuration, version: str = LATEST_PUBLISHED, **changes: Any) -> FunctionVersion:
    """A version as publishing leaves it: Pending if managed, else Active."""
    return replace(publish(latest(configuration), None, Publish(version, AT, "published")), **changes)


def serving(configuration: Configuration, version: str = LATEST_PUBLISHED, **changes: Any) -> FunctionVersion:
    """A published version that takes invocations."""
    pending = published(configuration, version)
    active = replace(
        pending,
        state=State.ACTIVE,
        state_reason=None,
        update_status=UpdateStatus.SUCCESSFUL,
        update_reason=None,
        serving=pending.publication,
    )
    return replace(active, **changes)


def provider(
    name: str = "cp", subnets: int = 3, max_vcpus: int = 400, **changes: Any
) -> CapacityProvider:  # Any: see above
    """An active capacity provider over `subnets` zones."""
    blank = CapacityProvider(
        name=name,
        state=ProviderState.ACTIVE,
        subnets=tuple(f"subnet-{n}" for n in range(subnets)),
        security_groups=(),
        operator_role="arn:aws:iam::000000000000:role/operator",
        last_modified=AT,
        requirements=InstanceRequirements(),
        scaling=ProviderScaling(max_vcpus),
    )
    return replace(blank, **changes)
