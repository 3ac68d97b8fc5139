"""The simulator: the decisions of `core` over a virtual clock, with load as a fluid.

    tick:  what is due happens ─► load flows through the slots ─► readings ─► core.demand ─► core.reconcile ─► orders to the machines

Nothing of scaling, placement or reconcile is imitated: the functions are those that a server calls. What is modelled is the rest. A version serves
as much per second as its slots and its vCPUs allow, whichever is less; what it cannot serve waits as long as a caller would, then is refused.
Invocations are not followed one by one, so a million a second costs what one a second does.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from lambstead.core import functions
from lambstead.core.arn import LATEST_PUBLISHED
from lambstead.core.capacity import (
    CapacityProvider,
    InstanceRequirements,
    ProviderScaling,
    ProviderState,
    Sizing,
)
from lambstead.core.configurations import CodePackage, Configuration, Logging, ManagedInstances
from lambstead.core.demand import (
    CPU_METRIC,
    LoadReading,
    Pace,
    ThrottleCause,
    Track,
    Tracking,
    cpu_target,
    throttle_cause,
    track,
)
from lambstead.core.desired import Desired, Policy, key_of
from lambstead.core.fleet import PublicationKey
from lambstead.core.functions import (
    CapacityFailed,
    CapacityFound,
    CapacityReady,
    FunctionVersion,
    Reason,
    Republished,
    State,
)
from lambstead.core.orders import (
    NoteAllocation,
    NoteDrained,
    NoteFailed,
    NoteObstacle,
    NoteReady,
    NoteRemoved,
    NoteRetry,
    Order,
)
from lambstead.core.reconcile import next_look, plan
from lambstead.core.scaling import ScalingBounds
from lambstead.simulation.machines import Machines
from lambstead.simulation.scenario import Deploy, Event, FunctionPlan, KillInstances, LoseZone, ProviderPlan, Scenario

START = datetime(2026, 1, 1, tzinfo=UTC)
REGION = "us-east-1"
FEE = 0.15
"""AWS's management fee, on the instances' on-demand price."""
USD_PER_REQUEST = 0.20 / 1_000_000
WARM_UP_MOST = timedelta(hours=2)
"""Before the scenario begins, versions become Active and reach what their first load wants; longer than this is not waited for."""
CALM = timedelta(minutes=1)
"""The warm-up is over when nobody lacked anything for so long."""
NAME = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One function in one tick."""

    second: float
    function: str
    rate: float
    """Requests a second that arrive."""
    served: float
    throttled: float
    """Requests in this tick; refused ones."""
    waiting: float
    ready: int
    """Environments that take invocations."""
    desired: int
    slot_utilization: float
    cpu_utilization: float
    instances: int
    """Of all providers."""
    usd_per_hour: float
    """Of all instances, fee included, without requests."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was decided or happened, and why."""

    second: float
    what: str
    because: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of one function."""

    function: str
    requests: float
    throttled: float
    throttles: dict[str, float]
    """By cause."""
    lost: float
    """Requests that ran on something that died."""
    most_environments: int
    mean_slot_utilization: float
    scaling_lag: float
    """Seconds from when so many environments were wanted until so many were ready, at most."""


@dataclass(frozen=True, slots=True)
class Result:
    title: str
    duration: float
    rows: list[Row]
    notes: list[Note]
    functions: list[Summary]
    most_instances: int
    usd: float
    """Instances with their fee, and requests."""


@dataclass(slots=True)
class _Flow:
    """The load of one function on its way."""

    plan: FunctionPlan
    track: Track | None = None
    waiting: float = 0.0
    in_use: float = 0.0
    ready_before: int = 0
    owed: deque[tuple[float, int]] = field(default_factory=deque)
    """When how many environments were wanted that are not ready yet; both grow."""
    most_lag: float = 0.0
    refused: float = 0.0
    """In the latest tick."""
    most_environments: int = 0
    requests: float = 0.0
    lost: float = 0.0
    throttles: dict[ThrottleCause, float] = field(default_factory=dict)
    slot_seconds_used: float = 0.0
    slot_seconds: float = 0.0


class Simulation:
    """One run of one scenario. `run` once."""

    def __init__(self, scenario: Scenario, pace: Pace | None = None) -> None:
        self._scenario = scenario
        self._pace = pace or Pace()
        self._now = START
        self._machines = Machines(
            timedelta(seconds=scenario.instance_start), timedelta(seconds=scenario.environment_start)
        )
        self._ids = self._machines.ids()
        self._policy = Policy(
            default_minimum=3,
            standard_limit=0,
            idle_environment=timedelta(minutes=10),
            idle_instance=scenario.idle_instance,
            drain_grace=timedelta(seconds=30),
        )
        self._providers = {p.name: _provider(p) for p in scenario.providers}
        self._versions: dict[NAME, FunctionVersion] = {
            (p.name, LATEST_PUBLISHED): _version(p) for p in scenario.functions
        }
        self._flows = {(p.name, LATEST_PUBLISHED): _Flow(p) for p in scenario.functions}
        self._obstacles: dict[NAME, Reason] = {}
        self._evaluated = START - self._pace.evaluation
        self._look_at: datetime | None = START
        self._rows: list[Row] = []
        self._notes: list[Note] = []
        self._usd = 0.0
        self._most_instances = 0
        self._recording = False
        self._deaths = False
        """True in the tick after something was killed."""

    def run(self) -> Result:
        """Play the scenario to its end."""
        tick = timedelta(seconds=self._scenario.tick)
        calm, most = timedelta(0), self._now + WARM_UP_MOST
        while calm < CALM and self._now < most:
            self._tick(0.0, tick)
            calm = (
                calm + tick
                if all(flow.track and not flow.owed and not flow.refused for flow in self._flows.values())
                else timedelta(0)
            )
        for flow in self._flows.values():
            self._flows[flow.plan.name, LATEST_PUBLISHED] = _Flow(
                flow.plan, flow.track, flow.waiting, flow.in_use, flow.ready_before
            )
        self._recording = True
        events = sorted(self._scenario.events, key=lambda event: event.at)
        begin = self._now
        while (second := (self._now - begin).total_seconds()) < self._scenario.duration:
            while events and events[0].at <= second:
                self._happens(events.pop(0), second)
            self._tick(second, tick)
        return Result(
            self._scenario.title,
            self._scenario.duration,
            self._rows,
            self._notes,
            [_summary(flow) for flow in self._flows.values()],
            self._most_instances,
            self._usd,
        )

    # --- one tick --------------------------------------------------------------------------------------------------------------

    def _tick(self, second: float, tick: timedelta) -> None:
        happened = self._machines.advance(self._now)
        is_due = self._now - self._evaluated >= self._pace.evaluation
        for name, flow in self._flows.items():
            self._flow(name, flow, second, tick.total_seconds())
        if is_due:
            self._evaluated = self._now
        if happened or is_due or (self._look_at is not None and self._now >= self._look_at):
            self._reconcile(second)
        self._bill(tick)
        self._now += tick

    def _flow(self, name: NAME, flow: _Flow, second: float, tick: float) -> None:
        """Load of one tick through the slots of one function."""
        plan_, version = flow.plan, self._versions[name]
        ready = self._machines.ready(self._serving(version))
        self._count_losses(flow, ready)
        rate = plan_.load.rate(second)
        slots = ready * plan_.slots
        # Slots and CPU each set a limit to what can be served; the lower one holds.
        by_slots = slots / plan_.duration if plan_.duration else 0.0
        by_cpu = ready * version.configuration.vcpus_per_environment / plan_.cpu if plan_.cpu else by_slots
        capacity = min(by_slots, by_cpu)
        offered = rate * tick + flow.waiting
        served = min(offered, capacity * tick)
        waiting = min(offered - served, capacity * self._scenario.slot_wait)
        refused = offered - served - waiting
        joined, flow.waiting = max(0.0, waiting - flow.waiting), waiting
        flow.in_use = slots if waiting else min(float(slots), served / tick * plan_.duration)
        cpu = served / tick / by_cpu if plan_.cpu and by_cpu else None
        reading = LoadReading(self._now, ready, flow.in_use, served, served + refused + joined, cpu)
        cause = throttle_cause(cpu)
        self._count(flow, reading, refused, cause, slots * tick, tick)
        if self._now - self._evaluated >= self._pace.evaluation and version.state is State.ACTIVE:
            self._scale(name, flow, reading, second)
        desired = flow.track.desired if flow.track else 0
        _keep_owed(flow, second, ready, desired)
        if self._recording:
            self._rows.append(
                Row(
                    second,
                    plan_.name,
                    rate,
                    served,
                    refused,
                    waiting,
                    ready,
                    desired,
                    flow.in_use / slots if slots else 0.0,
                    cpu or 0.0,
                    len(self._machines.fleet.instances),
                    self._machines.usd_per_hour * (1 + FEE),
                )
            )

    def _count_losses(self, flow: _Flow, ready: int) -> None:
        """What ran on environments that died since the tick before; drained ones finish what they run and are no loss."""
        if self._deaths and flow.ready_before > ready:
            flow.lost += flow.in_use * (flow.ready_before - ready) / flow.ready_before
        flow.ready_before = ready

    def _count(
        self, flow: _Flow, reading: LoadReading, refused: float, cause: ThrottleCause, slot_seconds: float, tick: float
    ) -> None:
        flow.refused = refused
        flow.requests += reading.served + refused
        if refused > 0:
            flow.throttles[cause] = flow.throttles.get(cause, 0.0) + refused
        flow.slot_seconds += slot_seconds
        flow.slot_seconds_used += reading.in_use * tick
        flow.most_environments = max(flow.most_environments, reading.ready)

    def _scale(self, name: NAME, flow: _Flow, reading: LoadReading, second: float) -> None:
        version = self._versions[name]
        provider = self._providers[flow.plan.provider]
        tracking = Tracking(
            flow.plan.slots, self._policy.bounds(version), cpu_target(provider.scaling, self._pace), self._pace
        )
        before = flow.track
        flow.track = track(before, reading, tracking)
        if before is not None and before.desired != flow.track.desired:
            self._note(second, f"scale {flow.plan.name} to {flow.track.desired} environments", flow.track.because)

    def _bill(self, tick: timedelta) -> None:
        self._deaths = False
        if not self._recording:
            return
        hours = tick.total_seconds() / 3600
        served = sum(row.served for row in self._rows[-len(self._flows) :])
        self._usd += self._machines.usd_per_hour * (1 + FEE) * hours + served * USD_PER_REQUEST
        self._most_instances = max(self._most_instances, len(self._machines.fleet.instances))

    # --- what core decides -------------------------------------------------------------------------------------------------------

    def _reconcile(self, second: float) -> None:
        scaled = {name: flow.track.desired for name, flow in self._flows.items() if flow.track}
        desired = Desired(
            tuple(self._versions.values()),
            self._providers,
            REGION,
            {},
            scaled=scaled,
            obstacles=dict(self._obstacles),
        )
        orders = plan(desired, self._machines.fleet, self._policy, self._ids, self._now)
        for order in orders:
            self._carry_out(order, second)
        wait = next_look(self._machines.fleet, self._policy, self._now)
        self._look_at = self._now if orders else (self._now + wait if wait is not None else None)

    def _carry_out(self, order: Order, second: float) -> None:
        match order:
            case NoteReady(key, bounds, asked):
                self._change(key, CapacityReady(key.number, bounds, "ready", asked))
            case NoteFailed(key, reason):
                self._note(second, f"fail {key}", reason.text)
                self._change(key, CapacityFailed(key.number, reason, "failed"))
            case NoteRetry(key):
                self._note(second, f"provision {key} again", "there is room now")
                self._change(key, CapacityFound(key.number, "retried"))
            case NoteObstacle(function, version, reason):
                if reason is None:
                    del self._obstacles[function, version]
                else:
                    self._obstacles[function, version] = reason
                self._note(second, f"{function} {'cannot' if reason else 'can'} grow", reason.text if reason else "")
            case NoteDrained() | NoteRemoved() | NoteAllocation():
                raise AssertionError(f"nothing is switched off, deleted or provisioned here: {order}")
            case _:
                self._machines.carry_out(order, self._now)

    def _change(self, key: PublicationKey, event: functions.VersionEvent) -> None:
        name = (key.function, key.version)
        self._versions[name] = functions.apply(self._versions[name], event)

    # --- what the scenario does ----------------------------------------------------------------------------------------------------

    def _happens(self, event: Event, second: float) -> None:
        match event:
            case LoseZone(_, letter, lasting):
                self._note(second, f"lose zone {letter}", f"the scenario says so, for {lasting:g} s")
                self._machines.lose_zone(letter, self._now, self._now + timedelta(seconds=lasting))
                self._deaths = True
            case KillInstances(_, count):
                self._note(second, f"kill {count} instances", "the scenario says so")
                self._machines.kill(count, self._now)
                self._deaths = True
            case Deploy(_, function):
                self._note(second, f"deploy {function}", "the scenario says so")
                name = (function, LATEST_PUBLISHED)
                before = self._versions[name]
                configuration = replace(before.configuration, description=f"deployed at {second:g} s")
                self._versions[name] = functions.apply(before, Republished(configuration, "", f"deploy at {second:g}"))
        self._look_at = self._now

    def _serving(self, version: FunctionVersion) -> PublicationKey:
        return key_of(version, version.serving or version.publication)

    def _note(self, second: float, what: str, because: str) -> None:
        if self._recording:
            self._notes.append(Note(second, what, because))


def simulate(text: str) -> Result:
    """Run a scenario given as TOML. Raises ScenarioError."""
    return Simulation(Scenario.parse(text)).run()


def _keep_owed(flow: _Flow, second: float, ready: int, desired: int) -> None:
    """Remember since when which number of environments is owed."""
    while flow.owed and (flow.owed[0][1] <= ready or flow.owed[0][1] > desired):
        flow.owed.popleft()
    if desired > ready and (not flow.owed or flow.owed[-1][1] < desired):
        flow.owed.append((second, desired))
    if flow.owed:
        flow.most_lag = max(flow.most_lag, second - flow.owed[0][0])


def _summary(flow: _Flow) -> Summary:
    return Summary(
        flow.plan.name,
        flow.requests,
        float(sum(flow.throttles.values())),
        {str(cause): float(count) for cause, count in flow.throttles.items()},
        flow.lost,
        flow.most_environments,
        flow.slot_seconds_used / flow.slot_seconds if flow.slot_seconds else 0.0,
        flow.most_lag,
    )


def _provider(plan_: ProviderPlan) -> CapacityProvider:
    manual = ({"PredefinedMetricType": CPU_METRIC, "TargetValue": plan_.cpu_target},) if plan_.cpu_target else ()
    return CapacityProvider(
        name=plan_.name,
        state=ProviderState.ACTIVE,
        subnets=tuple(f"subnet-{number}" for number in range(plan_.zones)),
        security_groups=(),
        operator_role="",
        last_modified="",
        requirements=InstanceRequirements(plan_.architecture, plan_.instance_types),
        scaling=ProviderScaling(plan_.max_vcpus, "Manual" if manual else "Auto", manual),
    )


def _version(plan_: FunctionPlan) -> FunctionVersion:
    configuration = Configuration(
        runtime="provided.al2023",
        handler="handler",
        role="",
        code=CodePackage("", 0),
        logging=Logging("JSON", f"/aws/lambda/{plan_.name}"),
        memory_mb=plan_.memory_mb,
        managed=ManagedInstances(plan_.provider, Sizing(plan_.slots, plan_.memory_gib_per_vcpu)),
    )
    return FunctionVersion(
        plan_.name,
        LATEST_PUBLISHED,
        configuration,
        State.PENDING,
        "created",
        "",
        bounds=ScalingBounds(plan_.minimum, plan_.maximum),
    )
