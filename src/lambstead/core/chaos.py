"""Faults on demand: what can be broken, whom it hits, and what follows for a launch, a start or an invocation.

    kill      once: instances, environments, workers          victims() says which
    lasting   until cleared or over: LostZone, NoCapacity, SlowStart, Throttled

The faults act at ports: a decorator of the driver, one of the way to the agents, and the admission of invocations ask `ActiveFaults`. Instances of
Lambda's own, which run standard functions, are hit only by a kill that names them: zones, providers and capacity are matters of capacity providers.
"""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from lambstead.core.errors import InvalidParameterValue, ResourceNotFound, TooManyRequests
from lambstead.core.fleet import Environment, Fleet, Instance, InstancePhase, Phase, Refusal
from lambstead.core.functions import Reason

ThrottleReason = Literal[
    "ConcurrentInvocationLimitExceeded",
    "FunctionInvocationRateLimitExceeded",
    "ReservedFunctionConcurrentInvocationLimitExceeded",
    "ReservedFunctionInvocationRateLimitExceeded",
    "CallerRateLimitExceeded",
]
"""Values of the service model's ThrottleReason that Invoke answers with."""
MAX_DELAY = timedelta(minutes=10)
MAX_FAULTS = 100
"""Lasting faults at one time."""

Sample = Callable[[Sequence[str], int], Sequence[str]]
"""So many of these at random, as `random.sample`."""


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom a kill hits: so many, at random, of what matches."""

    provider: str | None = None
    zone: str | None = None
    function: str | None = None
    """Only environments of this function, or instances that have one."""
    id: str | None = None
    """Of an instance, for KillInstance; of an environment, for the others."""
    count: int = 1


@dataclass(frozen=True, slots=True)
class KillInstance(Aim):
    """Instances end at once, as machines do that lose their power."""


@dataclass(frozen=True, slots=True)
class KillEnvironment(Aim):
    """The runtime of environments is killed; their instances go on."""


@dataclass(frozen=True, slots=True)
class KillWorker(Aim):
    """In each environment that is hit one worker process is killed; the environment goes on with the others."""


@dataclass(frozen=True, slots=True)
class LostZone:
    """Every instance in the zone dies, and none can be launched there."""

    zone: str
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class NoCapacity:
    """EC2 has no instance to give."""

    provider: str | None = None
    zone: str | None = None
    type: str | None = None
    """An instance type; may have wildcards, as `c7i.*`."""


@dataclass(frozen=True, slots=True)
class SlowStart:
    """Instances report, or environments are told to start, so much later."""

    delay: timedelta
    of: Literal["instance", "environment"] = "instance"
    provider: str | None = None
    zone: str | None = None
    function: str | None = None
    """Of environments only."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """Invocations of a function are refused with 429."""

    function: str
    version: str | None = None
    """As resolved: a number or `$LATEST.PUBLISHED`; None for all."""
    cause: ThrottleReason = "ConcurrentInvocationLimitExceeded"


Kill = KillInstance | KillEnvironment | KillWorker
Lasting = LostZone | NoCapacity | SlowStart | Throttled
Fault = Kill | Lasting

NAMES: dict[type[Fault], str] = {
    KillInstance: "kill-instance",
    KillEnvironment: "kill-environment",
    KillWorker: "kill-worker",
    LostZone: "lose-zone",
    NoCapacity: "no-capacity",
    SlowStart: "slow-start",
    Throttled: "throttle",
}


def check(fault: Fault) -> None:
    """Raise InvalidParameterValue for what is well-formed and makes no sense."""
    match fault:
        case KillInstance() | KillEnvironment() | KillWorker():
            if fault.count < 1:
                raise InvalidParameterValue(f"count is {fault.count}; it must be 1 or more.")
            if fault.id is not None and fault.count != 1:
                raise InvalidParameterValue("id names one victim; leave count out.")
        case SlowStart(delay, of, _, _, function):
            if not timedelta(0) < delay <= MAX_DELAY:
                raise InvalidParameterValue(f"delay must be above 0 and at most {MAX_DELAY}.")
            if of == "instance" and function is not None:
                raise InvalidParameterValue(
                    "An instance is started for no function: slow-start of instances takes none."
                )
        case LostZone() | NoCapacity() | Throttled():
            pass


# --- kills ------------------------------------------------------------------------------------------------------------


def victims(kill: Kill, fleet: Fleet, sample: Sample) -> list[str]:
    """Ids of instances or environments that are hit. Raises ResourceNotFound if fewer match than shall be hit."""
    match kill:
        case KillInstance():
            matching = [i.id for i in fleet.instances.values() if _is_hit(kill, i, fleet)]
        case KillEnvironment():
            matching = [e.id for e in fleet.environments.values() if _is_hit_environment(kill, e, fleet)]
        case KillWorker():
            matching = [
                e.id
                for e in fleet.environments.values()
                # Elsewhere one process is the runtime and its only worker.
                if _is_hit_environment(kill, e, fleet) and e.is_ready and e.slots > 1
            ]
    if len(matching) < kill.count:
        noun = "instance" if isinstance(kill, KillInstance) else "environment"
        given = {name: getattr(kill, name) for name in ("provider", "zone", "function", "id")}
        asked = ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
        raise ResourceNotFound(
            f"{len(matching)} running {noun}{'' if len(matching) == 1 else 's'} can be hit"
            f"{f' with {asked}' if asked else ''}, {kill.count} shall be; see `lambstead status`."
        )
    return list(sample(sorted(matching), kill.count))


def _is_hit(kill: KillInstance, instance: Instance, fleet: Fleet) -> bool:
    if instance.phase is InstancePhase.TERMINATING:
        return False
    if kill.id is not None and kill.id != instance.id:
        return False
    functions = {e.key.function for e in fleet.on(instance.id)}
    if instance.provider is None and kill.id is None and kill.function not in functions:
        return False
    return _is_in(instance, kill.provider, kill.zone) and (kill.function is None or kill.function in functions)


def _is_hit_environment(kill: KillEnvironment | KillWorker, environment: Environment, fleet: Fleet) -> bool:
    if environment.phase in (Phase.STARTING, Phase.STOPPING):
        return False
    return (
        kill.id in (None, environment.id)
        and kill.function in (None, environment.key.function)
        and _is_in(fleet.instances[environment.instance_id], kill.provider, kill.zone)
    )


def in_lost_zone(fault: LostZone, fleet: Fleet) -> list[str]:
    """Ids of the instances that a lost zone takes along."""
    return [i.id for i in fleet.instances.values() if i.provider is not None and _is_in(i, fault.provider, fault.zone)]


def _is_in(instance: Instance, provider: str | None, zone: str | None) -> bool:
    return provider in (None, instance.provider) and zone in (None, instance.zone)


# --- what lasts -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Active:
    """A lasting fault at work."""

    id: str
    fault: Lasting
    since: datetime
    until: datetime | None
    """When it is over by itself; None: when it is cleared."""
    hits: int = 0
    """Launches and invocations refused, starts delayed."""


@dataclass(slots=True)
class ActiveFaults:
    """The lasting faults at work. Mutable, as `admission.Pool` is: invocations ask it one by one."""

    now: Callable[[], datetime]
    active: dict[str, Active] = field(default_factory=dict)

    def add(self, id: str, fault: Lasting, duration: timedelta | None) -> Active:
        """Begin a fault. Raises InvalidParameterValue when there are too many."""
        self.sweep()
        if len(self.active) >= MAX_FAULTS:
            raise InvalidParameterValue(f"There are {MAX_FAULTS} faults at work; clear some first.")
        since = self.now()
        added = self.active[id] = Active(id, fault, since, since + duration if duration else None)
        return added

    def clear(self, id: str | None) -> list[Active]:
        """End one fault, or all; those that were ended. Raises ResourceNotFound for an id that is none."""
        self.sweep()
        if id is None:
            cleared, self.active = list(self.active.values()), {}
            return cleared
        if id not in self.active:
            raise ResourceNotFound(f"No fault {id} is at work; see `lambstead chaos list`.")
        return [self.active.pop(id)]

    def sweep(self) -> None:
        """Forget what is over."""
        now = self.now()
        self.active = {key: each for key, each in self.active.items() if each.until is None or now < each.until}

    def launch_refusal(self, instance: Instance) -> Refusal | None:
        """Why the instance cannot be launched: the StateReasonCode and EC2's words for want of capacity; None if it can."""
        for each in self._at_work():
            match each.fault:
                case LostZone(zone, provider) if instance.provider is not None and _is_in(instance, provider, zone):
                    whole_zone = True
                case NoCapacity(provider, zone, kind) if (
                    instance.provider is not None
                    and _is_in(instance, provider, zone)
                    and fnmatch.fnmatchcase(instance.type.name, kind or "*")
                ):
                    whole_zone = kind is None
                case _:
                    continue
            each.hits += 1
            reason = Reason(
                "InsufficientCapacity",
                f"We currently do not have sufficient {instance.type.name} capacity in the Availability Zone you requested ({instance.zone}).",
            )
            return Refusal(reason, whole_zone)
        return None

    def instance_delay(self, instance: Instance) -> timedelta:
        """How much later the instance starts."""
        return self._delay(
            lambda fault: (
                fault.of == "instance"
                and instance.provider is not None
                and _is_in(instance, fault.provider, fault.zone)
            )
        )

    def environment_delay(self, function: str, instance: Instance | None) -> timedelta:
        """How much later an environment of the function starts on the instance."""
        return self._delay(
            lambda fault: (
                fault.of == "environment"
                and fault.function in (None, function)
                and (instance is None or _is_in(instance, fault.provider, fault.zone))
            )
        )

    def _delay(self, hits: Callable[[SlowStart], bool]) -> timedelta:
        longest = timedelta(0)
        for each in self._at_work():
            if isinstance(each.fault, SlowStart) and hits(each.fault):
                each.hits += 1
                longest = max(longest, each.fault.delay)
        return longest

    def refusal(self, function: str, version: str) -> TooManyRequests | None:
        """The answer to an invocation that is throttled; None for the others."""
        if not self.active:
            return None
        for each in self._at_work():
            if (
                isinstance(each.fault, Throttled)
                and each.fault.function == function
                and each.fault.version in (None, version)
            ):
                each.hits += 1
                return TooManyRequests(
                    f"Rate Exceeded. (fault {each.id} throttles {function})", Reason=each.fault.cause, Type="User"
                )
        return None

    def _at_work(self) -> Iterator[Active]:
        now = self.now()
        return (each for each in self.active.values() if each.until is None or now < each.until)
