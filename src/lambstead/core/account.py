"""The account: AWS's limits of code storage, and what of them is used."""

from dataclasses import dataclass

TOTAL_CODE_BYTES = 80_530_636_800
"""Storage for all packages and layers: 75 GiB (Developer Guide, quotas)."""
UNZIPPED_CODE_BYTES = 262_144_000
"""Files of one package and its layers."""
ZIPPED_CODE_BYTES = 52_428_800
"""One package, uploaded with the request."""
CONCURRENT_EXECUTIONS = 1000
"""Invocations of standard functions at once, unless the operator sets another limit."""


@dataclass(frozen=True, slots=True)
class AccountUsage:
    """What the account's functions use."""

    functions: int
    code_bytes: int
    """Sum over all versions of all functions and layers; AWS counts a package once for every version that has it."""
