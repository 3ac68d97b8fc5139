"""A scenario: providers, functions with their load, and what happens to them. Read from TOML; every mistake is one sentence that names its place.

    title = "…"              duration = "30m"           tick = "5s"
    [machines]               instance_start = "33s"     environment_start = "15s"
    [[provider]]             name, zones, max_vcpus, architecture, instance_types, cpu_target (Manual mode)
    [[function]]             name, provider, memory_mb, memory_gib_per_vcpu, slots, minimum, maximum, duration, cpu, load = { shape = … }
    [[event]]                at, kind = "lose_zone" (zone, for) | "deploy" (function) | "kill_instances" (count)

Loads: steady (rps) · step (rps, to, at) · spike (rps, to, at, for) · doubling (rps, every, until) · daily (low, high, period).
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, get_args

from lambstead.core.capacity import Architecture

T = TypeVar("T")
_UNITS = {"us": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)")
MAX_TICKS = 100_000


class ScenarioError(Exception):
    """A scenario cannot be used; the message names the key and says what would work."""


@dataclass(frozen=True, slots=True)
class Steady:
    rps: float

    def rate(self, second: float) -> float:
        return self.rps


@dataclass(frozen=True, slots=True)
class Spike:
    """`to` requests a second from `at` on, for `lasting` seconds (for ever in a step)."""

    rps: float
    to: float
    at: float
    lasting: float = math.inf

    def rate(self, second: float) -> float:
        return self.to if self.at <= second < self.at + self.lasting else self.rps


@dataclass(frozen=True, slots=True)
class Doubling:
    """Twice as much every `every` seconds, steadily, until `until`; then back to what it was."""

    rps: float
    every: float
    until: float

    def rate(self, second: float) -> float:
        return self.rps * 2 ** (second / self.every) if second < self.until else self.rps


@dataclass(frozen=True, slots=True)
class Daily:
    """A sine between `low` at the beginning and `high` half a period later."""

    low: float
    high: float
    period: float

    def rate(self, second: float) -> float:
        return self.low + (self.high - self.low) * (1 - math.cos(2 * math.pi * second / self.period)) / 2


Load = Steady | Spike | Doubling | Daily


@dataclass(frozen=True, slots=True)
class ProviderPlan:
    name: str
    zones: int
    max_vcpus: int
    architecture: Architecture
    instance_types: tuple[str, ...]
    cpu_target: float | None
    """Percent, in Manual mode; None for Auto."""


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    name: str
    provider: str
    memory_mb: int
    memory_gib_per_vcpu: float
    slots: int
    minimum: int
    maximum: int | None
    duration: float
    """Seconds an invocation keeps its slot."""
    cpu: float
    """Seconds of CPU it takes meanwhile."""
    load: Load


@dataclass(frozen=True, slots=True)
class LoseZone:
    at: float
    zone: str
    """Its letter."""
    lasting: float
    """Seconds for which nothing can be launched there."""


@dataclass(frozen=True, slots=True)
class Deploy:
    at: float
    function: str


@dataclass(frozen=True, slots=True)
class KillInstances:
    at: float
    count: int


Event = LoseZone | Deploy | KillInstances


@dataclass(frozen=True, slots=True)
class Scenario:
    title: str
    duration: float
    tick: float
    instance_start: float
    environment_start: float
    slot_wait: float
    """Seconds an invocation waits for a slot before it is refused."""
    idle_instance: timedelta
    providers: tuple[ProviderPlan, ...]
    functions: tuple[FunctionPlan, ...]
    events: tuple[Event, ...]

    @classmethod
    def parse(cls, text: str) -> "Scenario":
        """The scenario of a TOML document. Raises ScenarioError."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise ScenarioError(f"It is not valid TOML: {exc}.") from exc
        top = _Table("", document)
        machines = top.table("machines")
        scenario = cls(
            title=top.text("title"),
            duration=top.seconds("duration"),
            tick=top.seconds("tick", 5.0),
            slot_wait=top.seconds("slot_wait", 2.0),
            instance_start=machines.seconds("instance_start", 33.0),
            environment_start=machines.seconds("environment_start", 15.0),
            idle_instance=timedelta(seconds=machines.seconds("idle_instance", 300.0)),
            providers=tuple(_provider(table) for table in top.tables("provider")),
            functions=tuple(_function(table) for table in top.tables("function")),
            events=tuple(_event(table) for table in top.tables("event", least=0)),
        )
        machines.done()
        top.done()
        _check(scenario)
        return scenario


def _check(scenario: Scenario) -> None:
    names = {provider.name for provider in scenario.providers}
    functions = {function.name for function in scenario.functions}
    for function in scenario.functions:
        if function.provider not in names:
            raise ScenarioError(f"function {function.name}: there is no provider {function.provider!r}.")
    for event in scenario.events:
        if isinstance(event, Deploy) and event.function not in functions:
            raise ScenarioError(f"event: there is no function {event.function!r} to deploy.")
    if scenario.duration / scenario.tick > MAX_TICKS:
        raise ScenarioError(f"duration: {scenario.duration / scenario.tick:.0f} ticks are more than {MAX_TICKS}.")


def _provider(table: "_Table") -> ProviderPlan:
    target = table.number("cpu_target", math.nan, 0, 100)
    provider = ProviderPlan(
        name=table.text("name"),
        zones=int(table.number("zones", 3, 1, 3)),
        max_vcpus=int(table.number("max_vcpus", 400, 2, 15_000)),
        architecture="arm64" if table.choice("architecture", get_args(Architecture), "x86_64") == "arm64" else "x86_64",
        instance_types=table.texts("instance_types"),
        cpu_target=None if math.isnan(target) else target,
    )
    table.done()
    return provider


def _function(table: "_Table") -> FunctionPlan:
    maximum = table.number("maximum", 0, 0, 15_000)
    function = FunctionPlan(
        name=table.text("name"),
        provider=table.text("provider"),
        memory_mb=int(table.number("memory_mb", 2048, 2048, 32_768)),
        memory_gib_per_vcpu=table.number("memory_gib_per_vcpu", 2.0, 2, 8),
        slots=int(table.number("slots", 16, 1, 1600)),
        minimum=int(table.number("minimum", 3, 1, 15_000)),
        maximum=int(maximum) or None,
        duration=table.seconds("duration"),
        cpu=table.seconds("cpu", 0.0),
        load=_load(table.table("load")),
    )
    table.done()
    return function


def _load(table: "_Table") -> Load:
    shapes: Mapping[str, Callable[[], Load]] = {
        "steady": lambda: Steady(table.number("rps")),
        "step": lambda: Spike(table.number("rps"), table.number("to"), table.seconds("at")),
        "spike": lambda: Spike(table.number("rps"), table.number("to"), table.seconds("at"), table.seconds("for")),
        "doubling": lambda: Doubling(table.number("rps"), table.seconds("every"), table.seconds("until")),
        "daily": lambda: Daily(table.number("low"), table.number("high"), table.seconds("period")),
    }
    load = shapes[table.choice("shape", tuple(shapes))]()
    table.done()
    return load


def _event(table: "_Table") -> Event:
    at = table.seconds("at")
    kinds: Mapping[str, Callable[[], Event]] = {
        "lose_zone": lambda: LoseZone(at, table.choice("zone", ("a", "b", "c")), table.seconds("for")),
        "deploy": lambda: Deploy(at, table.text("function")),
        "kill_instances": lambda: KillInstances(at, int(table.number("count", None, 1, 10_000))),
    }
    event = kinds[table.choice("kind", tuple(kinds))]()
    table.done()
    return event


class _Table:
    """A table of the document; remembers which keys were asked for, so that others are mistakes."""

    def __init__(self, path: str, content: Mapping[str, object]) -> None:
        self._path = path
        self._content = content
        self._known: set[str] = set()

    def text(self, key: str) -> str:
        return self._typed(key, str, None)

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._typed(key, list, [])
        if not all(isinstance(each, str) for each in found):
            raise self._wrong(key, "a list of texts")
        return tuple(found)

    def number(self, key: str, default: float | None = None, least: float = 0, most: float = 1e9) -> float:
        self._known.add(key)
        value = self._content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, f"a number from {least:g} to {most:g}")
        if key in self._content and not least <= value <= most:
            raise self._wrong(key, f"a number from {least:g} to {most:g}")
        return value

    def seconds(self, key: str, default: float | None = None) -> float:
        self._known.add(key)
        value = self._content.get(key)
        if value is None and default is not None:
            return default
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None or (float(match[1]) == 0 and key in ("tick", "duration", "every", "period")):
            raise self._wrong(key, "a duration such as 50ms, 5s, 10m or 1h")
        return float(match[1]) * _UNITS[match[2]]

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = self._typed(key, str, default)
        if value not in choices:
            raise self._wrong(key, f"one of {', '.join(choices)}")
        return value

    def table(self, key: str) -> "_Table":
        return _Table(self._place(key), self._typed(key, dict, {}))

    def tables(self, key: str, least: int = 1) -> list["_Table"]:
        found = self._typed(key, list, [])
        if len(found) < least or not all(isinstance(each, dict) for each in found):
            raise self._wrong(key, f"at least one table [[{key}]]")
        return [_Table(f"{key} {number}", each) for number, each in enumerate(found, 1)]

    def done(self) -> None:
        """Raise ScenarioError for a key that nobody asked for."""
        for key in self._content:
            if key not in self._known:
                raise ScenarioError(
                    f"{self._place(key)}: there is no such key here; there are {', '.join(sorted(self._known))}."
                )

    def _typed(self, key: str, kind: type[T], default: T | None) -> T:
        self._known.add(key)
        value = self._content.get(key, default)
        if not isinstance(value, kind):
            raise self._wrong(key, {"str": "a text", "dict": "a table", "list": "a list"}[kind.__name__])
        return value

    def _wrong(self, key: str, wanted: str) -> ScenarioError:
        given = f"{self._content[key]!r} is not" if key in self._content else "it is missing; it has to be"
        return ScenarioError(f"{self._place(key)}: {given} {wanted}.")

    def _place(self, key: str) -> str:
        return f"{self._path}, {key}" if self._path else key
