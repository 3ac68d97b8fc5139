"""Event source mappings: which source feeds which function, with which settings, and the states a mapping goes through.

    create ─► Creating ─► Enabled │ Disabled                      delete ─► Deleting ─► gone
    update ─► Updating ─► Enabled │ Disabled      enable ─► Enabling ─► Enabled      disable ─► Disabling ─► Disabled

What a mapping may say depends on the kind of its source; `KINDS` is the table of that. Defaults and texts marked "recorded" are answers of AWS
(recordings of the LocalStack project, restated); limits come from the service model's member descriptions; other texts are our own.
"""

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, assert_never

from lambstead.core.arn import FunctionRef, Realm
from lambstead.core.errors import DomainError, IllegalTransition, InvalidParameterValue, ResourceConflict

MAX_FILTERS = 10
"""AWS's quota is 5, on request 10."""
MAX_SQS_BATCH_WITHOUT_WINDOW = 10
MAX_FIFO_BATCH = 10
LEAST_RECORD_AGE_S = 60

Parameters = Mapping[str, Any]  # Any: members of the API, typed and checked by the service model


class ResourceInUse(DomainError):
    """The mapping is in the middle of another change."""

    shape = "ResourceInUseException"


class State(enum.StrEnum):
    CREATING = "Creating"
    ENABLED = "Enabled"
    DISABLED = "Disabled"
    ENABLING = "Enabling"
    DISABLING = "Disabling"
    UPDATING = "Updating"
    DELETING = "Deleting"


class Kind(enum.StrEnum):
    """The kinds of sources that a mapping can poll."""

    KINESIS = "Kinesis"
    DYNAMODB = "DynamoDB"
    SQS = "SQS"
    MSK = "MSK"
    SELF_MANAGED_KAFKA = "self-managed Kafka"
    MQ = "Amazon MQ"
    DOCUMENTDB = "DocumentDB"


_STREAM_DEFAULTS: Parameters = {
    # Recorded for Kinesis and DynamoDB.
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "MaximumRecordAgeInSeconds": -1,
    "MaximumRetryAttempts": -1,
    "BisectBatchOnFunctionError": False,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "DestinationConfig": {"OnFailure": {}},
}
_COMMON = frozenset({"BatchSize", "MaximumBatchingWindowInSeconds", "FilterCriteria", "KMSKeyArn", "MetricsConfig"})
_STREAM = _COMMON | frozenset(_STREAM_DEFAULTS) | {"StartingPosition", "StartingPositionTimestamp"}
_KAFKA = _COMMON | {
    *("StartingPosition", "StartingPositionTimestamp", "Topics", "SourceAccessConfigurations", "DestinationConfig"),
    *("ProvisionedPollerConfig", "LoggingConfig", "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError"),
    *("MaximumRetryAttempts", "FunctionResponseTypes"),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What a mapping of one kind may and must say."""

    accepted: frozenset[str]
    defaults: Parameters
    required: tuple[str, ...] = ()
    """Members that must be given, beside StartingPosition."""
    starts: frozenset[str] = frozenset()
    """Starting positions that can be asked for; empty where there are none."""
    needs_start: bool = False
    reason: str = "User action"
    """What StateTransitionReason says after a user's change: recorded, and different per kind."""
    shows_last_result: bool = True


_EVERY_START = frozenset({"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"})

KINDS: Mapping[Kind, Rules] = {
    Kind.KINESIS: Rules(_STREAM, _STREAM_DEFAULTS, starts=_EVERY_START, needs_start=True),
    Kind.DYNAMODB: Rules(_STREAM, _STREAM_DEFAULTS, starts=frozenset({"TRIM_HORIZON", "LATEST"}), needs_start=True),
    Kind.SQS: Rules(
        _COMMON | {"FunctionResponseTypes", "ScalingConfig", "ProvisionedPollerConfig"},
        {"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []},
        reason="USER_INITIATED",
        shows_last_result=False,
    ),
    Kind.MSK: Rules(
        _KAFKA | {"AmazonManagedKafkaEventSourceConfig"},
        {"BatchSize": 100, "StartingPosition": "TRIM_HORIZON"},
        required=("Topics",),
        starts=_EVERY_START,
        reason="USER_INITIATED",
    ),
    Kind.SELF_MANAGED_KAFKA: Rules(
        _KAFKA | {"SelfManagedEventSource", "SelfManagedKafkaEventSourceConfig"},
        {"BatchSize": 100, "StartingPosition": "TRIM_HORIZON"},
        required=("Topics", "SourceAccessConfigurations"),
        starts=_EVERY_START,
        reason="USER_INITIATED",
    ),
    Kind.MQ: Rules(
        _COMMON | {"Queues", "SourceAccessConfigurations"},
        {"BatchSize": 100},
        required=("Queues", "SourceAccessConfigurations"),
        reason="USER_INITIATED",
    ),
    Kind.DOCUMENTDB: Rules(
        _COMMON
        | {
            "StartingPosition",
            "StartingPositionTimestamp",
            "SourceAccessConfigurations",
            "DocumentDBEventSourceConfig",
        },
        {"BatchSize": 100},
        required=("SourceAccessConfigurations", "DocumentDBEventSourceConfig"),
        starts=_EVERY_START,
        needs_start=True,
        reason="USER_INITIATED",
    ),
}

NOT_ON_MANAGED_INSTANCES = frozenset({Kind.MQ, Kind.DOCUMENTDB})
"""Kinds that AWS does not list for functions on capacity providers (reference on managed instances, §15 and §16)."""

CONSUMER_GROUPS: Mapping[Kind, str] = {
    Kind.MSK: "AmazonManagedKafkaEventSourceConfig",
    Kind.SELF_MANAGED_KAFKA: "SelfManagedKafkaEventSourceConfig",
}
"""Where a Kafka mapping names its consumer group, which is the mapping's UUID unless given (recorded)."""

NOT_PARAMETERS = frozenset({"EventSourceArn", "FunctionName", "Enabled", "Tags", "UUID"})


@dataclass(frozen=True, slots=True)
class EventSourceMapping:
    """A mapping as stored."""

    id: str
    """Its UUID."""
    kind: Kind
    source: str
    """ARN of the source; for self-managed Kafka the bootstrap servers, joined by commas."""
    function: str
    qualifier: str | None
    state: State
    last_modified: datetime
    wants_enabled: bool = True
    """What the state becomes when the change that runs is done."""
    parameters: Parameters = field(default_factory=dict)

    @property
    def ref(self) -> FunctionRef:
        return FunctionRef(self.function, self.qualifier)

    @property
    def is_settling(self) -> bool:
        return self.state not in (State.ENABLED, State.DISABLED)

    @property
    def reason(self) -> str:
        """StateTransitionReason: so far only users change mappings."""
        return KINDS[self.kind].reason


# --- events -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Updated:
    """UpdateEventSourceMapping: new settings, all of them; `enabled` None leaves that as it is."""

    parameters: Parameters
    ref: FunctionRef
    enabled: bool | None
    at: datetime


@dataclass(frozen=True, slots=True)
class DeletionRequested:
    at: datetime


@dataclass(frozen=True, slots=True)
class Settled:
    """The change that ran is done."""


MappingEvent = Updated | DeletionRequested | Settled


def apply(mapping: EventSourceMapping, event: MappingEvent) -> EventSourceMapping | None:
    """The mapping after `event`; None once it is gone. Raises ResourceInUse where AWS refuses a change while another runs."""
    match event:
        case Updated():
            if mapping.is_settling:
                raise ResourceInUse("Cannot update the event source mapping because it is not fully operational.")
            return _updated(mapping, event)
        case DeletionRequested(at):
            if mapping.is_settling:
                raise ResourceInUse("Cannot delete the event source mapping because it is in use.")
            return replace(mapping, state=State.DELETING, last_modified=at)
        case Settled():
            if mapping.state is State.DELETING:
                return None
            if not mapping.is_settling:
                raise IllegalTransition(f"mapping {mapping.id} settled in state {mapping.state}")
            return replace(mapping, state=State.ENABLED if mapping.wants_enabled else State.DISABLED)
        case _:
            assert_never(event)


def _updated(mapping: EventSourceMapping, event: Updated) -> EventSourceMapping:
    wants_enabled = mapping.wants_enabled if event.enabled is None else event.enabled
    changed = event.parameters != mapping.parameters or event.ref != mapping.ref
    if changed or wants_enabled == mapping.wants_enabled:
        state = State.UPDATING
    else:
        state = State.ENABLING if wants_enabled else State.DISABLING
    return replace(
        mapping,
        parameters=event.parameters,
        function=event.ref.name,
        qualifier=event.ref.qualifier,
        wants_enabled=wants_enabled,
        state=state,
        last_modified=event.at,
    )


# --- reading requests -----------------------------------------------------------------------------------------------------------


def source_of(request: Parameters) -> tuple[Kind, str]:
    """The kind and the name of the source that a create request names. Raises InvalidParameterValue (recorded)."""
    arn = request.get("EventSourceArn")
    servers = request.get("SelfManagedEventSource")
    if bool(arn) == bool(servers):
        raise InvalidParameterValue("Unrecognized event source.")
    if servers:
        endpoints = (servers.get("Endpoints") or {}).get("KAFKA_BOOTSTRAP_SERVERS")
        if not endpoints:
            raise InvalidParameterValue("Unrecognized event source.")
        return Kind.SELF_MANAGED_KAFKA, ",".join(endpoints)
    return _kind_of_arn(arn or ""), arn or ""


def _kind_of_arn(arn: str) -> Kind:
    parts = arn.split(":", 5)
    service, resource = (parts[2], parts[5]) if len(parts) == 6 else ("", "")
    match service, resource.split("/"):
        case "kinesis", ["stream", _, *rest] if not rest or rest[0] == "consumer":
            return Kind.KINESIS
        case "dynamodb", ["table", _, "stream", _]:
            return Kind.DYNAMODB
        case "sqs", [queue] if queue:
            return Kind.SQS
        case "kafka", ["cluster" | "vpc-connection", *_]:
            return Kind.MSK
        case "mq", [broker] if broker.startswith("broker:"):
            return Kind.MQ
        case "rds", [cluster] if cluster.startswith("cluster:"):
            return Kind.DOCUMENTDB
        case _:
            raise InvalidParameterValue("Unrecognized event source.")


def created_parameters(kind: Kind, mapping_id: str, source: str, request: Parameters) -> dict[str, Any]:
    """The settings of a new mapping, defaults filled in. Raises what AWS answers to settings that cannot be."""
    rules = KINDS[kind]
    given = {name: value for name, value in request.items() if name not in NOT_PARAMETERS}
    _refuse_unsupported(rules, given)
    for name in rules.required:
        if not given.get(name):
            raise InvalidParameterValue(f"Required '{name[0].lower()}{name[1:]}' parameter is missing.")
    _check_start(rules, source, given)
    parameters = {**rules.defaults, **given}
    if (group := CONSUMER_GROUPS.get(kind)) is not None:
        parameters[group] = {"ConsumerGroupId": mapping_id, **(given.get(group) or {})}
    return _checked(kind, source, parameters)


def updated_parameters(mapping: EventSourceMapping, request: Parameters) -> dict[str, Any]:
    """The settings after an update: what is not named stays. Raises like `created_parameters`."""
    given = {name: value for name, value in request.items() if name not in NOT_PARAMETERS}
    _refuse_unsupported(KINDS[mapping.kind], given)
    group = CONSUMER_GROUPS.get(mapping.kind)
    if group and group in given:
        given[group] = {**(mapping.parameters.get(group) or {}), **given[group]}
    return _checked(mapping.kind, mapping.source, {**mapping.parameters, **given})


def _refuse_unsupported(rules: Rules, given: Parameters) -> None:
    for name in given:
        if name not in rules.accepted:
            # Recorded for DestinationConfig on SQS.
            raise InvalidParameterValue(f"Unsupported {name} parameter for given event source mapping type.")


def _check_start(rules: Rules, source: str, given: Parameters) -> None:
    start = given.get("StartingPosition")
    if start is None and rules.needs_start:
        raise InvalidParameterValue(  # recorded
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."
        )
    if start is not None and start not in rules.starts:
        raise InvalidParameterValue(f"Unsupported starting position for arn type: {source}")  # recorded
    if (start == "AT_TIMESTAMP") != ("StartingPositionTimestamp" in given):
        raise InvalidParameterValue(
            "StartingPositionTimestamp must be given with the starting position AT_TIMESTAMP, and only with it."
        )


def _checked(kind: Kind, source: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The settings if they go together, emptied members left out as AWS does."""
    if kind is Kind.SQS:
        _check_sqs_batch(source, parameters)
    age = parameters.get("MaximumRecordAgeInSeconds", -1)
    if age != -1 and age < LEAST_RECORD_AGE_S:
        raise InvalidParameterValue(
            f"MaximumRecordAgeInSeconds must be -1, for no limit, or from {LEAST_RECORD_AGE_S} to 604800 seconds; it is {age}."
        )
    pollers = parameters.get("ProvisionedPollerConfig") or {}
    if pollers.get("MinimumPollers", 1) > pollers.get("MaximumPollers", 10_000):
        raise InvalidParameterValue("MinimumPollers must not be greater than MaximumPollers.")
    filters = (parameters.get("FilterCriteria") or {}).get("Filters") or []
    check_filters(filters)
    dropped = {"FilterCriteria"} if not filters else set()
    dropped |= {name for name in ("ScalingConfig", "ProvisionedPollerConfig", "KMSKeyArn") if not parameters.get(name)}
    return {name: value for name, value in parameters.items() if name not in dropped}


def _check_sqs_batch(source: str, parameters: Parameters) -> None:
    size, window = parameters["BatchSize"], parameters["MaximumBatchingWindowInSeconds"]
    if source.endswith(".fifo"):
        if size > MAX_FIFO_BATCH:
            raise InvalidParameterValue(
                f"The batch size of a FIFO queue can be at most {MAX_FIFO_BATCH}; it is {size}."
            )
        if window:
            raise InvalidParameterValue("Batching window is not supported for FIFO queues.")
    elif size > MAX_SQS_BATCH_WITHOUT_WINDOW and window < 1:
        raise InvalidParameterValue(  # recorded
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )


# --- filters --------------------------------------------------------------------------------------------------------------------


def check_filters(filters: Sequence[Mapping[str, str]]) -> None:
    """Raise InvalidParameterValue for patterns that are no event patterns (text recorded), and for too many."""
    if len(filters) > MAX_FILTERS:
        raise InvalidParameterValue(
            f"An event source mapping can have at most {MAX_FILTERS} filters; {len(filters)} are given."
        )
    for each in filters:
        try:
            pattern = json.loads(each.get("Pattern", ""))
        except (ValueError, RecursionError) as exc:
            raise InvalidParameterValue("Invalid filter pattern definition.") from exc
        if not isinstance(pattern, dict) or not _is_pattern(pattern):
            raise InvalidParameterValue("Invalid filter pattern definition.")


def _is_pattern(pattern: Mapping[str, object]) -> bool:
    """True when every field has a list of at least one rule, or a pattern of its own fields (recorded: `{"a": []}` is none)."""
    return bool(pattern) and all(_is_field(name, value) for name, value in pattern.items())


def _is_field(name: str, value: object) -> bool:
    if name == "$or":
        return isinstance(value, list) and len(value) > 1 and all(isinstance(v, dict) and _is_pattern(v) for v in value)
    if isinstance(value, dict):
        return _is_pattern(value)
    return isinstance(value, list) and bool(value) and all(_is_rule(rule) for rule in value)


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
    )


def _is_text_rule(value: object) -> bool:
    """A text, or a text whose case does not matter."""
    if isinstance(value, dict):
        return set(value) == {"equals-ignore-case"} and isinstance(value["equals-ignore-case"], str)
    return isinstance(value, str)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _is_anything_but(value: object) -> bool:
    if isinstance(value, dict):
        return len(value) == 1 and all(
            name in ("prefix", "suffix", "equals-ignore-case", "wildcard") and _is_texts(v) for name, v in value.items()
        )
    return _is_scalar(value) or (isinstance(value, list) and bool(value) and all(_is_scalar(v) for v in value))


def _is_numeric(value: object) -> bool:
    """`[">", 1]` or `[">=", 1, "<", 5]`."""
    if not isinstance(value, list) or len(value) not in (2, 4):
        return False
    operators, numbers = value[::2], value[1::2]
    return all(o in ("<", "<=", "=", ">", ">=") for o in operators) and all(
        isinstance(n, int | float) and not isinstance(n, bool) for n in numbers
    )


_RULES: Mapping[str, Callable[[object], bool]] = {
    "exists": lambda value: isinstance(value, bool),
    "prefix": _is_text_rule,
    "suffix": _is_text_rule,
    "equals-ignore-case": lambda value: isinstance(value, str),
    "wildcard": lambda value: isinstance(value, str),
    "cidr": lambda value: isinstance(value, str),
    "anything-but": _is_anything_but,
    "numeric": _is_numeric,
}


def _is_rule(rule: object) -> bool:
    if not isinstance(rule, dict):
        return _is_scalar(rule)
    return len(rule) == 1 and all(name in _RULES and _RULES[name](value) for name, value in rule.items())


# --- duplicates -------------------------------------------------------------------------------------------------------------------


def refuse_duplicate(
    kind: Kind,
    source: str,
    ref: FunctionRef,
    parameters: Parameters,
    existing: Sequence[EventSourceMapping],
    realm: Realm,
) -> None:
    """Raise ResourceConflict when the function has a mapping of this source already (texts recorded)."""
    topics = parameters.get("Topics") or parameters.get("Queues")
    for other in existing:
        if other.kind is not kind or other.function != ref.name or other.qualifier != ref.qualifier:
            continue
        if (other.parameters.get("Topics") or other.parameters.get("Queues")) != topics:
            continue
        if _overlaps(kind, source, other.source):
            raise ResourceConflict(_duplicate_text(kind, source, ref, topics, other.id, realm))


def _overlaps(kind: Kind, source: str, other: str) -> bool:
    if kind is Kind.SELF_MANAGED_KAFKA:
        return bool(set(source.split(",")) & set(other.split(",")))
    return source == other


def _duplicate_text(
    kind: Kind, source: str, ref: FunctionRef, topics: Sequence[str] | None, other: str, realm: Realm
) -> str:
    advice = f"Please update or delete the existing mapping with UUID {other}"
    if kind is Kind.SQS:
        return f'An event source mapping with SQS arn (" {source} ") and function (" {ref.name} ") already exists. {advice}'
    if kind in (Kind.KINESIS, Kind.DYNAMODB):
        return f'The event source arn (" {source} ") and function (" {ref.name} ") provided mapping already exists. {advice}'
    named = f', topics ("{",".join(topics)}")' if topics else ""
    return f'An event source mapping with event source ("{source}"), function ("{ref.arn(realm)}"){named} already exists. {advice}'
