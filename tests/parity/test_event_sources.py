"""Event source mappings: defaults, states and refusals per kind of source, as AWS answers them. Nothing is polled yet."""

import json
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.harness import create_function, create_provider, publish_managed, wait_active, wait_for
from tests.parity.steps import REALM, UUID, Answers, Like, Moment, Source, Step, conflict, converse, invalid, not_found

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

RECORDED, MODEL, DOCUMENTATION, OURS = Source.RECORDED, Source.MODEL, Source.DOCUMENTATION, Source.OURS
CREATE, GET, UPDATE, DELETE = (f"{verb}_event_source_mapping" for verb in ("create", "get", "update", "delete"))
ACCOUNT = "us-east-1:000000000000"
KINESIS = f"arn:aws:kinesis:{ACCOUNT}:stream/s"
DYNAMODB = f"arn:aws:dynamodb:{ACCOUNT}:table/t/stream/2026-01-01T00:00:00.000"
SQS = f"arn:aws:sqs:{ACCOUNT}:q"
FIFO = f"arn:aws:sqs:{ACCOUNT}:q.fifo"
MSK = f"arn:aws:kafka:{ACCOUNT}:cluster/c/6f1d-1"
MQ = f"arn:aws:mq:{ACCOUNT}:broker:b:b-1"
DOCUMENTDB = f"arn:aws:rds:{ACCOUNT}:cluster:d"
SECRET = [{"Type": "BASIC_AUTH", "URI": f"arn:aws:secretsmanager:{ACCOUNT}:secret:s"}]
KAFKA = {
    "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka:1000"]}},
    "Topics": ["topic"],
    "SourceAccessConfigurations": SECRET,
}
F = {"FunctionName": "{F}"}
QUEUE_OF_F = f"arn:aws:sqs:{ACCOUNT}:{{F}}"


def mapping(reason: str, state: str = "Creating", **members: Any) -> dict[str, Any]:
    return {
        "UUID": UUID,
        "EventSourceMappingArn": Like(rf"{REALM}:event-source-mapping:[0-9a-f-]{{36}}"),
        "FunctionArn": "{A}",
        "LastModified": Moment(),
        "State": state,
        "StateTransitionReason": reason,
        **members,
    }


def stream(state: str = "Creating", **members: Any) -> dict[str, Any]:
    """What Kinesis and DynamoDB mappings are unless told otherwise."""
    defaults = {
        "BatchSize": 100,
        "BisectBatchOnFunctionError": False,
        "DestinationConfig": {"OnFailure": {}},
        "FunctionResponseTypes": [],
        "LastProcessingResult": "No records processed",
        "MaximumBatchingWindowInSeconds": 0,
        "MaximumRecordAgeInSeconds": -1,
        "MaximumRetryAttempts": -1,
        "ParallelizationFactor": 1,
        "TumblingWindowInSeconds": 0,
    }
    return mapping("User action", state, **{**defaults, **members})


def queue(state: str = "Creating", **members: Any) -> dict[str, Any]:
    defaults = {
        "BatchSize": 10,
        "EventSourceArn": SQS,
        "FunctionResponseTypes": [],
        "MaximumBatchingWindowInSeconds": 0,
    }
    return mapping("USER_INITIATED", state, **{**defaults, **members})


def kafka(**members: Any) -> dict[str, Any]:
    defaults = {"BatchSize": 100, "LastProcessingResult": "No records processed", "StartingPosition": "TRIM_HORIZON"}
    return mapping("USER_INITIATED", **{**defaults, **members})


DEFAULTS = [
    Step(CREATE, {**F, "EventSourceArn": SQS}, Answers(202, queue()), RECORDED),
    Step(
        CREATE,
        {**F, "EventSourceArn": KINESIS, "StartingPosition": "LATEST"},
        Answers(202, stream(EventSourceArn=KINESIS, StartingPosition="LATEST")),
        RECORDED,
    ),
    Step(
        CREATE,
        {
            **F,
            "EventSourceArn": DYNAMODB,
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 1,
            "MaximumBatchingWindowInSeconds": 1,
            "MaximumRetryAttempts": 1,
            "DestinationConfig": {"OnFailure": {"Destination": SQS}},
            "FilterCriteria": {"Filters": []},
        },
        Answers(
            202,
            stream(
                EventSourceArn=DYNAMODB,
                StartingPosition="TRIM_HORIZON",
                BatchSize=1,
                MaximumBatchingWindowInSeconds=1,
                MaximumRetryAttempts=1,
                DestinationConfig={"OnFailure": {"Destination": SQS}},
            ),
        ),
        RECORDED,
    ),
    Step(
        CREATE,
        {**F, **KAFKA},
        Answers(202, kafka(**KAFKA, SelfManagedKafkaEventSourceConfig={"ConsumerGroupId": UUID})),
        RECORDED,
    ),
    Step(
        CREATE,
        {
            **F,
            **KAFKA,
            "Topics": ["topic_2"],
            "BatchSize": 1,
            "StartingPosition": "LATEST",
            "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "random_id"},
        },
        Answers(
            202,
            kafka(
                **{**KAFKA, "Topics": ["topic_2"]},
                BatchSize=1,
                StartingPosition="LATEST",
                SelfManagedKafkaEventSourceConfig={"ConsumerGroupId": "random_id"},
            ),
        ),
        RECORDED,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": MSK, "Topics": ["topic"]},
        Answers(
            202,
            kafka(EventSourceArn=MSK, Topics=["topic"], AmazonManagedKafkaEventSourceConfig={"ConsumerGroupId": UUID}),
        ),
        MODEL,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": MQ, "Queues": ["q"], "SourceAccessConfigurations": SECRET},
        Answers(
            202,
            mapping(
                "USER_INITIATED",
                EventSourceArn=MQ,
                Queues=["q"],
                SourceAccessConfigurations=SECRET,
                BatchSize=100,
                LastProcessingResult="No records processed",
            ),
        ),
        MODEL,
    ),
    Step(
        CREATE,
        {
            **F,
            "EventSourceArn": DOCUMENTDB,
            "StartingPosition": "AT_TIMESTAMP",
            "StartingPositionTimestamp": datetime(2026, 1, 2, tzinfo=UTC),
            "SourceAccessConfigurations": SECRET,
            "DocumentDBEventSourceConfig": {"DatabaseName": "d"},
        },
        Answers(
            202,
            mapping(
                "USER_INITIATED",
                EventSourceArn=DOCUMENTDB,
                StartingPosition="AT_TIMESTAMP",
                StartingPositionTimestamp=datetime(2026, 1, 2, tzinfo=UTC),
                SourceAccessConfigurations=SECRET,
                DocumentDBEventSourceConfig={"DatabaseName": "d"},
                BatchSize=100,
                LastProcessingResult="No records processed",
            ),
        ),
        MODEL,
    ),
]

NULL_START = invalid(
    "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."
)
SOURCE_MISSING = invalid("Unrecognized event source.")
BAD_FILTER = invalid("Invalid filter pattern definition.")


def filtered(pattern: str) -> dict[str, Any]:
    return {**F, "EventSourceArn": SQS, "FilterCriteria": {"Filters": [{"Pattern": pattern}]}}


REFUSALS = [
    Step(CREATE, F, SOURCE_MISSING, RECORDED),
    Step(CREATE, {**F, "EventSourceArn": "arn:aws:s3:::bucket"}, SOURCE_MISSING, OURS),
    Step(CREATE, {**F, **KAFKA, "EventSourceArn": MSK}, SOURCE_MISSING, OURS),
    Step(CREATE, {"FunctionName": "nobody", "EventSourceArn": SQS}, invalid("Function does not exist"), RECORDED),
    Step(CREATE, {"FunctionName": "{F}:live", "EventSourceArn": SQS}, invalid("Function does not exist"), OURS),
    Step(CREATE, {**F, "EventSourceArn": KINESIS}, NULL_START, RECORDED),
    Step(CREATE, {**F, "EventSourceArn": DYNAMODB}, NULL_START, RECORDED),
    Step(
        CREATE,
        {
            **F,
            "EventSourceArn": DYNAMODB,
            "StartingPosition": "AT_TIMESTAMP",
            "StartingPositionTimestamp": datetime(2026, 1, 2, tzinfo=UTC),
        },
        invalid(f"Unsupported starting position for arn type: {DYNAMODB}"),
        RECORDED,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": KINESIS, "StartingPosition": "AT_TIMESTAMP"},
        invalid("StartingPositionTimestamp must be given with the starting position AT_TIMESTAMP, and only with it."),
        OURS,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": SQS, "DestinationConfig": {"OnFailure": {"Destination": SQS}}},
        invalid("Unsupported DestinationConfig parameter for given event source mapping type."),
        RECORDED,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": KINESIS, "StartingPosition": "LATEST", "ScalingConfig": {"MaximumConcurrency": 2}},
        invalid("Unsupported ScalingConfig parameter for given event source mapping type."),
        OURS,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": SQS, "BatchSize": 11},
        invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        RECORDED,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": FIFO, "BatchSize": 11, "MaximumBatchingWindowInSeconds": 1},
        invalid("The batch size of a FIFO queue can be at most 10; it is 11."),
        OURS,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": FIFO, "MaximumBatchingWindowInSeconds": 1},
        invalid("Batching window is not supported for FIFO queues."),
        OURS,
    ),
    Step(
        CREATE,
        {**F, **{k: v for k, v in KAFKA.items() if k != "SourceAccessConfigurations"}},
        invalid("Required 'sourceAccessConfigurations' parameter is missing."),
        RECORDED,
    ),
    Step(CREATE, {**F, "EventSourceArn": MSK}, invalid("Required 'topics' parameter is missing."), OURS),
    Step(
        CREATE,
        {**F, "EventSourceArn": KINESIS, "StartingPosition": "LATEST", "MaximumRecordAgeInSeconds": 59},
        invalid("MaximumRecordAgeInSeconds must be -1, for no limit, or from 60 to 604800 seconds; it is 59."),
        OURS,
    ),
    Step(
        CREATE,
        {
            **F,
            "EventSourceArn": MSK,
            "Topics": ["topic"],
            "ProvisionedPollerConfig": {"MinimumPollers": 5, "MaximumPollers": 4},
        },
        invalid("MinimumPollers must not be greater than MaximumPollers."),
        OURS,
    ),
    *(
        Step(CREATE, filtered(pattern), BAD_FILTER, RECORDED)
        for pattern in ("null", "simple string", '{"eventSource": "aws:sqs"}', '{"eventSource": []}')
    ),
    *(
        Step(CREATE, filtered(pattern), BAD_FILTER, DOCUMENTATION)
        for pattern in (
            *("[]", "{}", '{"a": {}}', '{"a": [{"nonsense": 1}]}', '{"a": [{"exists": "yes"}]}'),
            *('{"a": [{"numeric": [">"]}]}', '{"a": [{"numeric": ["~", 1]}]}', '{"a": [{"prefix": 1}]}'),
            *('{"$or": [{"a": [1]}]}', '{"a": [[1]]}', '{"a": [{"exists": true, "prefix": "x"}]}'),
        )
    ),
    *(
        Step(
            operation,
            {"UUID": "00000000-0000-0000-0000-000000000000"},
            not_found("The resource you requested does not exist."),
            RECORDED,
        )
        for operation in (GET, UPDATE, DELETE)
    ),
    Step("list_event_source_mappings", F, Answers(200, {"EventSourceMappings": []}), MODEL),
]

DUPLICATES = [
    Step(CREATE, {**F, "EventSourceArn": SQS}, Answers(202, queue(), {"Q": "UUID"}), RECORDED),
    Step(
        CREATE,
        {**F, "EventSourceArn": SQS},
        conflict(
            f'An event source mapping with SQS arn (" {SQS} ") and function (" {{F}} ") already exists. '
            "Please update or delete the existing mapping with UUID {Q}"
        ),
        RECORDED,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": KINESIS, "StartingPosition": "LATEST"},
        Answers(202, None, {"K": "UUID"}),
        RECORDED,
    ),
    Step(
        CREATE,
        {**F, "EventSourceArn": KINESIS, "StartingPosition": "LATEST"},
        conflict(
            f'The event source arn (" {KINESIS} ") and function (" {{F}} ") provided mapping already exists. '
            "Please update or delete the existing mapping with UUID {K}"
        ),
        RECORDED,
    ),
    Step(CREATE, {**F, **KAFKA}, Answers(202, None, {"S": "UUID"}), RECORDED),
    *(
        Step(
            CREATE,
            {**F, **KAFKA, "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": servers}}},
            conflict(
                f'An event source mapping with event source ("{",".join(servers)}"), function ("{{A}}"), topics ("topic") '
                "already exists. Please update or delete the existing mapping with UUID {S}"
            ),
            RECORDED,
        )
        for servers in (["kafka:1000"], ["kafka:1000", "kafka:2000"])
    ),
    Step(CREATE, {**F, "FunctionName": "{G}", "EventSourceArn": SQS}, Answers(202, None), MODEL),
]


@pytest.mark.parametrize(
    ("function", "steps"),
    [("esm-defaults", DEFAULTS), ("esm-refusals", REFUSALS), ("esm-duplicates", DUPLICATES)],
)
def test_mappings_are_answered_as_aws_does(aws: "LambdaClient", function: str, steps: list[Step]) -> None:
    converse(aws, function, steps)


@pytest.mark.parametrize(
    "pattern",
    [
        '{"body": {"testItem": ["test24", "test45"], "test2": ["go"]}}',
        '{"body": {"test2": [{"exists": true}]}}',
        '{"body": {"test2": [{"numeric": [">=", 100, "<", 200]}]}}',
        '{"body": {"test2": [{"prefix": "us-1"}]}}',
        '{"a": [{"anything-but": ["x", 1]}], "b": [null, true, 1.5]}',
        '{"a": [{"anything-but": {"prefix": "x"}}], "b": [{"suffix": {"equals-ignore-case": "x"}}]}',
        '{"$or": [{"a": [1]}, {"b": [{"cidr": "10.0.0.0/8"}]}]}',
    ],
)
def test_patterns_that_are_event_patterns_are_kept_as_they_came(aws: "LambdaClient", pattern: str) -> None:
    """Recorded for the first four, the others from the documentation of event patterns."""
    name = f"esm-filter-{zlib.crc32(pattern.encode())}"
    create_function(aws, name, "def handler(e, c):\n    return 1\n")
    created = aws.create_event_source_mapping(
        FunctionName=name, EventSourceArn=SQS, FilterCriteria={"Filters": [{"Pattern": pattern}]}
    )
    assert created["FilterCriteria"] == {"Filters": [{"Pattern": pattern}]}


def test_an_unknown_starting_position_breaks_the_model_s_constraint(aws: "LambdaClient") -> None:
    """Recorded, with the order of the values."""
    with pytest.raises(ClientError) as caught:
        aws.create_event_source_mapping(FunctionName="f", EventSourceArn=KINESIS, StartingPosition="invalid")  # type: ignore[arg-type]  # wrong on purpose
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"] == (
        "1 validation error detected: Value 'invalid' at 'startingPosition' failed to satisfy constraint: "
        "Member must satisfy enum value set: [LATEST, AT_TIMESTAMP, TRIM_HORIZON]"
    )


# --- life -------------------------------------------------------------------------------------------------------------------------


def deploy(aws: "LambdaClient", name: str) -> str:
    create_function(aws, name, "def handler(e, c):\n    return 1\n")
    wait_active(aws, name, "$LATEST")
    return aws.get_function_configuration(FunctionName=name)["FunctionArn"]


def settled(aws: "LambdaClient", uuid: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = dict(aws.get_event_source_mapping(UUID=uuid))
        return found if found["State"] == state else None

    return wait_for(look, f"the mapping is {state}")


def test_a_mapping_s_life(aws: "LambdaClient") -> None:
    """Recorded: Creating to Enabled, deletion answers the mapping as Deleting; the others from the model's list of states."""
    deploy(aws, "life")
    uuid = aws.create_event_source_mapping(FunctionName="life", EventSourceArn=SQS)["UUID"]
    settled(aws, uuid, "Enabled")
    updated = aws.update_event_source_mapping(UUID=uuid, BatchSize=5)
    assert (updated["State"], updated["BatchSize"], updated["MaximumBatchingWindowInSeconds"]) == ("Updating", 5, 0)
    assert updated["ResponseMetadata"]["HTTPStatusCode"] == 202
    settled(aws, uuid, "Enabled")
    assert aws.update_event_source_mapping(UUID=uuid, Enabled=False)["State"] == "Disabling"
    settled(aws, uuid, "Disabled")
    assert aws.update_event_source_mapping(UUID=uuid, BatchSize=6)["State"] == "Updating"
    settled(aws, uuid, "Disabled")
    assert aws.update_event_source_mapping(UUID=uuid, Enabled=True)["State"] == "Enabling"
    settled(aws, uuid, "Enabled")
    deleted = aws.delete_event_source_mapping(UUID=uuid)
    assert (deleted["State"], deleted["ResponseMetadata"]["HTTPStatusCode"]) == ("Deleting", 202)

    def gone() -> bool:
        try:
            aws.get_event_source_mapping(UUID=uuid)
        except aws.exceptions.ResourceNotFoundException:
            return True
        return False

    wait_for(gone, "the mapping is gone")
    assert (
        aws.create_event_source_mapping(FunctionName="life", EventSourceArn=SQS, Enabled=False)["State"] == "Creating"
    )


def test_updates_are_checked_like_creates(aws: "LambdaClient") -> None:
    deploy(aws, "checked")
    deploy(aws, "checked-other")
    uuid = aws.create_event_source_mapping(FunctionName="checked", EventSourceArn=SQS)["UUID"]
    settled(aws, uuid, "Enabled")
    before = aws.get_event_source_mapping(UUID=uuid)
    for members, text in (
        ({"BatchSize": 11}, "Maximum batch window in seconds must be greater than 0"),
        ({"ParallelizationFactor": 2}, "Unsupported ParallelizationFactor parameter"),
        ({"FunctionName": "nobody"}, "Function does not exist"),
        ({"FilterCriteria": {"Filters": [{"Pattern": "[]"}]}}, "Invalid filter pattern definition."),
    ):
        with pytest.raises(ClientError, match=text):
            aws.update_event_source_mapping(UUID=uuid, **members)
    after = aws.get_event_source_mapping(UUID=uuid)
    assert {**after, "ResponseMetadata": 0} == {**before, "ResponseMetadata": 0}
    taken = aws.create_event_source_mapping(FunctionName="checked-other", EventSourceArn=SQS)["UUID"]
    with pytest.raises(ClientError, match=f"already exists.*{taken}"):
        aws.update_event_source_mapping(UUID=uuid, FunctionName="checked-other")


def test_a_mapping_outlives_its_function(aws: "LambdaClient") -> None:
    """Recorded."""
    deploy(aws, "mortal")
    uuid = aws.create_event_source_mapping(FunctionName="mortal", EventSourceArn=SQS)["UUID"]
    settled(aws, uuid, "Enabled")
    aws.delete_function(FunctionName="mortal")
    assert aws.get_event_source_mapping(UUID=uuid)["State"] == "Enabled"
    aws.delete_event_source_mapping(UUID=uuid)


def test_the_function_is_shown_as_it_was_named(aws: "LambdaClient") -> None:
    """Recorded: name, partial and full ARN, with version, alias and $LATEST."""
    arn = deploy(aws, "named")
    aws.publish_version(FunctionName="named")
    aws.create_alias(FunctionName="named", Name="live", FunctionVersion="1")
    for given, shown in (
        ("named", arn),
        ("000000000000:function:named:$LATEST", f"{arn}:$LATEST"),
        (f"{arn}:1", f"{arn}:1"),
        ("function:named:live", f"{arn}:live"),
    ):
        created = aws.create_event_source_mapping(FunctionName=given, EventSourceArn=SQS)
        assert created["FunctionArn"] == shown
    found = aws.list_event_source_mappings(FunctionName="named")["EventSourceMappings"]
    assert {each["FunctionArn"] for each in found} == {arn, f"{arn}:$LATEST", f"{arn}:1", f"{arn}:live"}
    (live,) = aws.list_event_source_mappings(FunctionName="named:live")["EventSourceMappings"]
    assert live["FunctionArn"] == f"{arn}:live"


def test_lists_are_complete_under_paging_and_filter_by_source(aws: "LambdaClient") -> None:
    deploy(aws, "listed")
    arns = [f"arn:aws:sqs:{ACCOUNT}:listed-{number}" for number in range(25)]
    created = {aws.create_event_source_mapping(FunctionName="listed", EventSourceArn=arn)["UUID"] for arn in arns}
    pages = list(
        aws.get_paginator("list_event_source_mappings").paginate(
            FunctionName="listed", PaginationConfig={"PageSize": 10}
        )
    )
    found = [each["UUID"] for page in pages for each in page["EventSourceMappings"]]
    assert [len(page["EventSourceMappings"]) for page in pages] == [10, 10, 5]
    assert (set(found), len(found)) == (created, 25)
    (one,) = aws.list_event_source_mappings(EventSourceArn=arns[3])["EventSourceMappings"]
    assert one["EventSourceArn"] == arns[3]


def test_mappings_carry_tags(aws: "LambdaClient") -> None:
    deploy(aws, "tagged")
    created = aws.create_event_source_mapping(FunctionName="tagged", EventSourceArn=SQS, Tags={"a": "b"})
    arn = created["EventSourceMappingArn"]
    aws.tag_resource(Resource=arn, Tags={"c": "d"})
    assert aws.list_tags(Resource=arn)["Tags"] == {"a": "b", "c": "d"}
    aws.untag_resource(Resource=arn, TagKeys=["a"])
    assert aws.list_tags(Resource=arn)["Tags"] == {"c": "d"}
    missing = arn[:-36] + "00000000-0000-0000-0000-000000000000"
    with pytest.raises(ClientError, match=f"Event source mapping not found: {missing}"):
        aws.list_tags(Resource=missing)


def test_managed_functions_take_the_sources_that_aws_lists_for_them(aws: "LambdaClient") -> None:
    publish_managed(aws, "managed", "def handler(e, c):\n    return 1\n", create_provider(aws))
    name = "managed:$LATEST.PUBLISHED"
    created = aws.create_event_source_mapping(FunctionName=name, EventSourceArn=SQS)
    assert created["FunctionArn"].endswith(":function:managed:$LATEST.PUBLISHED")
    with pytest.raises(ClientError, match="Event source mappings of Amazon MQ are not supported"):
        aws.create_event_source_mapping(
            FunctionName=name,
            EventSourceArn=MQ,
            Queues=["q"],
            SourceAccessConfigurations=json.loads(json.dumps(SECRET)),
        )
