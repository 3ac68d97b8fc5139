"""Configurations of functions: everything a publish freezes, and the publication of it that environments run.

A re-publish in place freezes another configuration under a higher number, so that environments of the new publication can come up while those of
the old one serve.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lambstead.core.capacity import Sizing
from lambstead.core.durable.model import DurableConfig
from lambstead.core.tenancy import TenantIsolationMode


@dataclass(frozen=True, slots=True)
class CodePackage:
    """An uploaded zip, or a container image: its content address, and what the API reports of it."""

    sha256: str
    """As in `CodeSha256`: base64 of the SHA-256 of a zip, hexadecimal digits of an image's digest."""
    size_bytes: int
    """Of the zip; 0 for an image."""
    image_uri: str = ""
    """What the image was named; empty for a zip."""
    source_kms_key: str = ""
    """ARN of the key that the caller has the zip encrypted with; recorded only."""

    @property
    def is_image(self) -> bool:
        return bool(self.image_uri)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer version that a function references; the function keeps its content though the layer version be deleted."""

    arn: str
    code: CodePackage


@dataclass(frozen=True, slots=True)
class Logging:
    """LoggingConfig: where and how the function's output is recorded. Levels are empty in Text format."""

    format: Literal["JSON", "Text"]
    group: str
    application_level: str = ""
    system_level: str = ""


@dataclass(frozen=True, slots=True)
class ManagedInstances:
    """That a function runs on a capacity provider, and how."""

    provider: str
    """Name of the capacity provider."""
    sizing: Sizing


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything a publish freezes."""

    runtime: str
    """Empty for a container image, as is the handler."""
    handler: str
    role: str
    code: CodePackage
    logging: Logging
    description: str = ""
    timeout_s: int = 3
    memory_mb: int = 128
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    ephemeral_storage_mb: int = 512
    variables: Mapping[str, str] | None = None
    """Environment variables; None when the function has no Environment member at all."""
    managed: ManagedInstances | None = None
    layers: tuple[Layer, ...] = ()
    """In the order in which they are laid over one another; a later one's file hides an earlier one's."""
    durable: DurableConfig | None = None
    """How long its executions may take and are kept; None for a function that is not durable."""
    tenant_isolation_mode: TenantIsolationMode | None = None
    """Whether tenants have environments of their own; as the function was created, for good."""
    recorded: Mapping[str, Any] = field(default_factory=dict)
    """Members of the API that have no rule here, as given (VpcConfig, TracingConfig, KMSKeyArn, …)."""  # Any: API documents

    @property
    def slots_per_environment(self) -> int:
        """Invocations that one environment runs at once."""
        return self.managed.sizing.slots if self.managed else 1

    @property
    def vcpus_per_environment(self) -> float:
        """vCPUs of one environment; for standard functions AWS's share of one vCPU per 1,769 MB."""
        return self.managed.sizing.vcpus(self.memory_mb) if self.managed else max(self.memory_mb / 1769, 0.05)

    def same_as(self, other: "Configuration") -> bool:
        """True when both run the same; the description does not count."""
        return replace(self, description="") == replace(other, description="")


@dataclass(frozen=True, slots=True)
class Publication:
    """What environments run: a frozen configuration and its number, which grows with every publish of the same version."""

    number: int
    configuration: Configuration
