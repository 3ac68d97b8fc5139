"""Concurrency of standard functions: what is reserved, what is provisioned, what is left, and which invocation may start.

    account limit ─┬─ reserved for function A ─┬─ provisioned for A:1
                   │                           └─ the rest of A's reservation: every other version of A
                   ├─ provisioned for B:live (B has no reservation)
                   └─ unreserved: all other invocations, never less than MIN_UNRESERVED

An invocation takes its version's provisioned concurrency first. Beyond that it draws on its function's reservation or, without one, on the
unreserved concurrency of the account. Functions on a capacity provider are not counted (decision 0010).

Sources: Developer Guide, reserved and provisioned concurrency; error texts and the order of the draws as recorded from AWS (reference on the
Lambda API, §9 and §11).
"""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from lambstead.core.aliases import Alias
from lambstead.core.errors import DomainError, IllegalTransition, InvalidParameterValue, ResourceConflict

K = TypeVar("K")
MIN_UNRESERVED = 100
"""AWS keeps at least so much of the account's concurrency unreserved."""


class ProvisionedConcurrencyConfigNotFound(DomainError):
    """The version or alias has no provisioned concurrency."""

    shape = "ProvisionedConcurrencyConfigNotFoundException"


class AllocationStatus(enum.StrEnum):
    IN_PROGRESS = "IN_PROGRESS"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Allocation:
    """How far the allocation of provisioned concurrency has come."""

    status: AllocationStatus = AllocationStatus.IN_PROGRESS
    available: int = 0
    """Initialised environments that are kept for it."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class ProvisionedConcurrency:
    """Environments that are kept initialised for one version, or for what an alias points to."""

    function: str
    qualifier: str
    requested: int
    last_modified: str
    allocation: Allocation = Allocation()

    def shares(self, alias: Alias | None) -> Mapping[str, int]:
        """Environments by version; `alias` is the one that the qualifier names, if it names one.

        A second version of the alias gets its weight of them, rounded; AWS says no more than that the numbers follow the weights.
        """
        if alias is None:
            return {self.qualifier: self.requested}
        second = round(self.requested * alias.second_weight) if alias.second else 0
        shares = {alias.version: self.requested - second}
        if alias.second:
            shares[alias.second] = second
        return shares


@dataclass(frozen=True, slots=True)
class ConcurrencyLimits:
    """What one function may use; all that admission needs to know of it."""

    reserved: int | None = None
    """None: the function draws on the unreserved concurrency."""
    provisioned: Mapping[str, int] = field(default_factory=dict)
    """Provisioned concurrency by version."""

    @classmethod
    def of(
        cls, reserved: int | None, provisioned: Iterable[ProvisionedConcurrency], aliases: Mapping[str, Alias]
    ) -> "ConcurrencyLimits":
        """The limits that follow from a function's reservation, provisioned concurrency and aliases."""
        by_version: Counter[str] = Counter()
        for config in provisioned:
            by_version.update(config.shares(aliases.get(config.qualifier)))
        return cls(reserved, by_version)

    @property
    def total_provisioned(self) -> int:
        return sum(self.provisioned.values())


# --- what may be asked for ------------------------------------------------------------------------------------------------


def check_reserved(asked: int, total_provisioned: int, unreserved: int, unreserved_otherwise: int) -> None:
    """Raise unless a function may reserve `asked`.

    `unreserved` is the account's unreserved concurrency now, `unreserved_otherwise` what it would be if this function took nothing.
    """
    left = unreserved_otherwise - asked
    if left < MIN_UNRESERVED and left < unreserved:
        raise InvalidParameterValue(
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
            f"below its minimum value of [{MIN_UNRESERVED}].",
            Type=None,
        )
    if asked < total_provisioned:
        raise InvalidParameterValue(
            f" ReservedConcurrentExecutions  {asked} should not be lower than function's total provisioned concurrency "
            f"[{total_provisioned}].",
            Type=None,
        )


def check_provisioned(asked: int, others: int, reserved: int | None, unreserved_otherwise: int) -> None:
    """Raise unless a qualifier may have `asked`.

    `others` is what the function's other qualifiers have, `unreserved_otherwise` the account's unreserved concurrency without this one.
    """
    if reserved is not None:
        if others + asked > reserved:
            raise InvalidParameterValue(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
            )
        return
    if asked > unreserved_otherwise:
        raise InvalidParameterValue(
            "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency "
            f"[{unreserved_otherwise}].",
            Type=None,
        )
    if unreserved_otherwise - asked < MIN_UNRESERVED:
        raise InvalidParameterValue(
            "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
            f"below its minimum value of [{MIN_UNRESERVED}].",
            Type=None,
        )


def refuse_provisioned_twice(qualifier: str, aliases: Mapping[str, Alias], provisioned: Iterable[str]) -> None:
    """Raise if the qualifier's environments are spoken for already: by its alias's version, or by an alias that points to it."""
    taken = set(provisioned)
    alias = aliases.get(qualifier)
    if alias is not None:
        if taken.intersection(alias.versions):
            raise ResourceConflict(
                "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
            )
    elif any(qualifier in other.versions for name, other in aliases.items() if name in taken):
        raise ResourceConflict("Version is pointed by a Provisioned Concurrency alias")


# --- which invocation may start -------------------------------------------------------------------------------------------


class Drawn(enum.Enum):
    """What an invocation draws on."""

    PROVISIONED = "provisioned"
    RESERVED = "reserved"
    UNRESERVED = "unreserved"


@dataclass(frozen=True, slots=True)
class Held:
    """Room for one invocation; to be given back with `Ledger.settle`, once."""

    function: str
    version: str
    drawn: Drawn


class Exhausted(enum.StrEnum):
    """What is used up."""

    RESERVATION = "reservation"
    ACCOUNT = "account"


@dataclass(slots=True)
class Ledger:
    """Invocations of standard functions that run or wait for their environment.

    Like `admission.Pool` it is mutable because it sits on the path of every invocation; it does no I/O. Limits come in with each call, so a
    changed limit counts from the next invocation on; what runs is never taken back.
    """

    _provisioned: Counter[tuple[str, str]] = field(default_factory=Counter)
    _others: Counter[str] = field(default_factory=Counter)
    """By function: invocations that hold no provisioned concurrency, whatever they draw on."""
    _unreserved: int = 0

    def admit(self, function: str, version: str, limits: ConcurrencyLimits, unreserved: int) -> Held | Exhausted:
        """Room for one invocation, or what stands in its way. `unreserved` is the account's unreserved concurrency."""
        if self._provisioned[function, version] < limits.provisioned.get(version, 0):
            self._provisioned[function, version] += 1
            return Held(function, version, Drawn.PROVISIONED)
        if limits.reserved is not None:
            if self._others[function] >= limits.reserved - limits.total_provisioned:
                return Exhausted.RESERVATION
            self._others[function] += 1
            return Held(function, version, Drawn.RESERVED)
        if self._unreserved >= unreserved:
            return Exhausted.ACCOUNT
        self._others[function] += 1
        self._unreserved += 1
        return Held(function, version, Drawn.UNRESERVED)

    def settle(self, held: Held) -> None:
        """The invocation ended. Raises IllegalTransition if more end than began."""
        if held.drawn is Drawn.PROVISIONED:
            _take_one(self._provisioned, (held.function, held.version))
            return
        _take_one(self._others, held.function)
        if held.drawn is Drawn.UNRESERVED:
            self._unreserved -= 1

    def running(self, function: str) -> int:
        """Invocations of all versions of the function."""
        provisioned = sum(count for (name, _), count in self._provisioned.items() if name == function)
        return provisioned + self._others[function]


def _take_one(counter: Counter[K], key: K) -> None:
    if counter[key] <= 0:
        raise IllegalTransition(f"{key} settled more invocations than were admitted")
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
