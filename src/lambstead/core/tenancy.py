"""Tenant isolation: a function that was created with it is invoked for a tenant, and never lends a tenant's environment to another.

Sources: Developer Guide, "Tenant isolation" and its pages on configuring, invoking, monitoring and troubleshooting; the refusal of an invocation without
a tenant is AWS's own, as many have quoted it. Of the other refusals AWS documents that they happen and not their words: those are ours.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from lambstead.core.errors import InvalidParameterValue

TenantIsolationMode = Literal["PER_TENANT"]

_TENANT_ID = re.compile(r"[a-zA-Z0-9._:/=+\-@ ]{1,256}")
"""The shape TenantId of the service model, for ids that come in no request of the API."""


def is_tenant_id(text: str) -> bool:
    """True for what Invoke takes as a tenant id."""
    return _TENANT_ID.fullmatch(text) is not None


def check_tenant(mode: TenantIsolationMode | None, tenant_id: str) -> None:
    """Raise InvalidParameterValue unless an invocation names a tenant exactly if the function isolates tenants. An empty id is none."""
    if mode is None:
        if tenant_id:
            raise InvalidParameterValue(
                "The invoked function is not enabled with tenancy configuration. "
                "Remove the tenant ID from your request and try again."
            )
    elif not tenant_id:
        raise InvalidParameterValue(
            "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."
        )


def refuse_with_tenancy(mode: TenantIsolationMode | None, feature: str) -> None:
    """Raise InvalidParameterValue if the function isolates tenants: AWS does not have `feature`, a noun in the singular, for these."""
    if mode is not None:
        raise InvalidParameterValue(f"{feature} is not supported for functions with tenancy configuration.")


def check_tenancy(
    mode: TenantIsolationMode | None, recorded: Mapping[str, Any], *, managed: bool
) -> None:  # Any: API documents
    """Raise InvalidParameterValue for what a configuration cannot have together with tenant isolation."""
    if managed:
        refuse_with_tenancy(mode, "CapacityProviderConfig")
    if recorded.get("SnapStart", {}).get("ApplyOn", "None") != "None":
        refuse_with_tenancy(mode, "SnapStart")
