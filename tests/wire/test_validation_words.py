"""Broken constraints in AWS's words: the sentences of the reference on the Lambda API, one by one.

Texts marked "recorded" are AWS's own, as quoted in that reference; where the pinned model has moved on since (new runtimes, new kinds of
taggable resources) the pattern of the model stands in the expectation.
"""

import json
import re
from typing import Any

import pytest

from lambstead.core.errors import DomainError
from lambstead.wire import validate
from lambstead.wire.gateway import AwsApi

LAMBDA = AwsApi.load("lambda")
LOGS = AwsApi.load("logs")
ROLE = "arn:aws:iam::000000000000:role/r"

FUNCTION_NAME = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
)
NAMESPACED = FUNCTION_NAME + r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
CREATED = FUNCTION_NAME + r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
QUALIFIER = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"


def parse(method: str, path: str, query: str = "", body: object = None, headers: dict[str, str] | None = None) -> Any:
    match = LAMBDA.match(method, path.encode(), query.encode(), headers or {})
    return LAMBDA.parse(match, headers or {}, b"" if body is None else json.dumps(body).encode())


def refusal(*request: Any, **more: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        parse(*request, **more)
    return refused.value


def create(**members: Any) -> tuple[str, str, str, dict[str, Any]]:
    return "POST", "/2015-03-31/functions", "", {"FunctionName": "f", "Role": ROLE, "Code": {}, **members}


def one(value: str, path: str, constraint: str) -> str:
    return f"1 validation error detected: Value {value} at '{path}' failed to satisfy constraint: {constraint}"


def pattern(text: str) -> str:
    return f"Member must satisfy regular expression pattern: {text}"


SUBNETS = (
    "Member must satisfy constraint: [Member must have length less than or equal to 1024, "
    "Member must have length greater than or equal to 0, Member must satisfy regular expression pattern: subnet-[0-9a-z]*]"
)
ARCHITECTURES = (
    "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
)
WEIGHTS = (
    "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, "
    "Member must have value greater than or equal to 0.0, Member must not be null]"
)
WEIGHT_KEYS = (
    "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, "
    "Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]"
)
ALIAS = {"Name": "a", "FunctionVersion": "1"}
ALIASES = "/2015-03-31/functions/f/aliases"
SIZE = {"ProvisionedConcurrentExecutions": 0}


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        # recorded: patterns printed for Get, Delete, Invoke and for CreateFunction
        (("GET", "/2015-03-31/functions/a%20b"), one("'a b'", "functionName", pattern(NAMESPACED))),
        (("DELETE", "/2015-03-31/functions/a%2Fb"), one("'a/b'", "functionName", pattern(NAMESPACED))),
        (("POST", "/2015-03-31/functions/a!/invocations"), one("'a!'", "functionName", pattern(NAMESPACED))),
        (create(FunctionName="a.b"), one("'a.b'", "functionName", pattern(CREATED))),
        (create(FunctionName="$latest"), one("'$latest'", "functionName", pattern(CREATED))),
        (("GET", "/2015-03-31/functions/f", "Qualifier=a.b"), one("'a.b'", "qualifier", pattern(QUALIFIER))),
        (
            ("GET", "/2015-03-31/functions/f", "Qualifier=" + "q" * 129),
            one(f"'{'q' * 129}'", "qualifier", "Member must have length less than or equal to 128"),
        ),
        # recorded: function URLs are for aliases and $LATEST without a qualifier
        *(
            (
                ("GET", "/2021-10-31/functions/f/url", f"Qualifier={qualifier}"),
                one(f"'{qualifier}'", "qualifier", pattern(r"((?!^\d+$)^[0-9a-zA-Z-_]+$)")),
            )
            for qualifier in ("1", "2", "$LATEST", "$LATEST.PUBLISHED")
        ),
        # recorded: aliases, statement ids, roles, tags
        (
            ("POST", ALIASES, "", ALIAS | {"Name": "2024"}),
            one("'2024'", "name", pattern("(?!^[0-9]+$)([a-zA-Z0-9-_]+)")),
        ),
        (
            ("DELETE", "/2015-03-31/functions/f/policy/a%20b"),
            one("'a b'", "statementId", pattern("([a-zA-Z0-9-_.]+)")),
        ),
        (
            create(Role="nobody"),
            one("'nobody'", "role", pattern(r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")),
        ),
        (
            (
                "DELETE",
                f"/2017-03-31/tags/{ROLE.replace('iam::', 'lambda:us-east-1:').replace('role/r', 'function:f')}",
            ),
            one("null", "tagKeys", "Member must not be null"),
        ),
        # recorded: lengths of lists, enums of list members, map values and keys
        (
            create(Architectures=["x86_64", "arm64"]),
            one("'[x86_64, arm64]'", "architectures", "Member must have length less than or equal to 1"),
        ),
        (create(Architectures=["riscv"]), one("'[riscv]'", "architectures", ARCHITECTURES)),
        (create(Architectures=[None]), one("'[null]'", "architectures", ARCHITECTURES)),
        (create(VpcConfig={"SubnetIds": ["bad"]}), one("'[bad]'", "vpcConfig.subnetIds", SUBNETS)),
        (
            ("POST", ALIASES, "", ALIAS | {"RoutingConfig": {"AdditionalVersionWeights": {"2": 2}}}),
            one("'{2=2.0}'", "routingConfig.additionalVersionWeights", WEIGHTS),
        ),
        (
            ("POST", ALIASES, "", ALIAS | {"RoutingConfig": {"AdditionalVersionWeights": {"$LATEST": 0.5}}}),
            one("'{$LATEST=0.5}'", "routingConfig.additionalVersionWeights", WEIGHT_KEYS),
        ),
        # recorded: enums, in the order in which AWS prints them
        (
            create(SnapStart={"ApplyOn": "Always"}),
            one("'Always'", "snapStart.applyOn", "Member must satisfy enum value set: [PublishedVersions, None]"),
        ),
        (
            ("POST", "/2021-10-31/functions/f/url", "", {"AuthType": "NONE", "InvokeMode": "SLOW"}),
            one("'SLOW'", "invokeMode", "Member must satisfy enum value set: [RESPONSE_STREAM, BUFFERED]"),
        ),
        (
            ("PUT", "/2024-08-31/functions/f/recursion-config", "", {"RecursiveLoop": "Maybe"}),
            one("'Maybe'", "recursiveLoop", "Member must satisfy enum value set: [Terminate, Allow]"),
        ),
        (
            ("GET", "/2015-03-31/functions", "FunctionVersion=SOME"),
            one("'SOME'", "functionVersion", "Member must satisfy enum value set: [ALL]"),
        ),
        # recorded: ranges
        (
            ("PUT", "/2019-09-30/functions/f/provisioned-concurrency", "Qualifier=1", SIZE),
            one("'0'", "provisionedConcurrentExecutions", "Member must have value greater than or equal to 1"),
        ),
        (create(MemorySize=127), one("'127'", "memorySize", "Member must have value greater than or equal to 128")),
        (create(Timeout=5401), one("'5401'", "timeout", "Member must have value less than or equal to 5400")),
        # required members, at any depth
        (("POST", ALIASES, "", {"Name": "a"}), one("null", "functionVersion", "Member must not be null")),
        (
            ("POST", ALIASES, "", {"Name": "a", "FunctionVersion": None}),
            one("null", "functionVersion", "Member must not be null"),
        ),
        (
            create(CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": {}}),
            one(
                "null",
                "capacityProviderConfig.lambdaManagedInstancesCapacityProviderConfig.capacityProviderArn",
                "Member must not be null",
            ),
        ),
        # sensitive values stay out of the answer
        (
            create(Environment={"Variables": {"1SECRET": "hush"}}),
            "1 validation error detected: Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy "
            f"constraint: [{pattern('[a-zA-Z]([a-zA-Z0-9_])+')}, Member must not be null]",
        ),
        # a Java field name, seen in AWS's answers
        (
            create(KMSKeyArn="arn:a:b:c:d"),
            one("'arn:a:b:c:d'", "kMSKeyArn", pattern("(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()")),
        ),
    ],
)
def test_a_broken_constraint_is_a_validation_exception_in_aws_words(request_: tuple[Any, ...], sentence: str) -> None:
    refused = refusal(*request_)
    assert refused.shape == "ValidationException"
    assert refused.message == sentence


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", ALIASES, "", ALIAS | {"Name": "2024-01-02"}),
        ("GET", "/2015-03-31/functions/f", "Qualifier=$latest"),
        ("GET", "/2015-03-31/functions/000000000000%3Afunction%3Af"),
        ("GET", "/2015-03-31/functions/function:f:1"),
        ("GET", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af%3Aalias"),
        ("GET", "/2015-03-31/functions/arn:aws:lambda:us-east-1:000000000000:function"),
        create(FunctionName="arn:aws:lambda:us-east-1:000000000000:function:f"),
        create(SnapStart={"ApplyOn": "None"}, Architectures=["arm64"], Timeout=5400, MemorySize=32768),
        create(VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}),
        create(Environment={"Variables": {}}),
        create(KMSKeyArn=""),
    ],
)
def test_what_aws_accepts_is_accepted(request_: tuple[Any, ...]) -> None:
    assert parse(*request_)


def test_several_broken_constraints_are_joined_with_the_qualifier_first_and_length_before_pattern() -> None:
    name = "!" * 257
    refused = refusal("GET", f"/2015-03-31/functions/{name}", "Qualifier=a.b")
    assert refused.message == (
        f"3 validation errors detected: Value 'a.b' at 'qualifier' failed to satisfy constraint: {pattern(QUALIFIER)}; "
        f"Value '{name}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 256; "
        f"Value '{name}' at 'functionName' failed to satisfy constraint: {pattern(NAMESPACED)}"
    )


def test_create_function_allows_140_characters_for_an_arn_and_says_so() -> None:
    refused = refusal(*create(FunctionName="x" * 141))
    assert refused.shape == "ValidationException"
    assert refused.message.endswith(
        "'functionName' failed to satisfy constraint: Member must have length less than or equal to 140"
    )


@pytest.mark.parametrize("form", ["{}", "function:{}", "000000000000:function:{}:alias"])
def test_a_function_name_above_64_has_the_sentence_under_another_code(form: str) -> None:
    assert parse(*create(FunctionName=form.format("x" * 64)))
    refused = refusal(*create(FunctionName=form.format("x" * 65)))
    assert refused.shape == "InvalidParameterValueException"
    assert refused.message == one(f"'{'x' * 65}'", "functionName", "Member must have length less than or equal to 64")
    assert json.loads(LAMBDA.fail("CreateFunction", refused, "r").body)["Type"] == "User"


@pytest.mark.parametrize("runtime", ["PYTHON3.13", "python9", "custom", "arn:aws:s3:::bucket"])
@pytest.mark.parametrize("operation", ["create", "update"])
def test_an_unknown_runtime_is_an_invalid_parameter_value_without_quotes_or_count(runtime: str, operation: str) -> None:
    update = ("PUT", "/2015-03-31/functions/f/configuration", "", {"Runtime": runtime})
    refused = refusal(*(create(Runtime=runtime) if operation == "create" else update))
    assert refused.shape == "InvalidParameterValueException"
    found = re.fullmatch(
        re.escape(f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [")
        + r"(.*)\] or be a valid ARN",
        refused.message,
    )
    assert found is not None
    recorded = {
        *("nodejs16.x", "nodejs18.x", "nodejs20.x", "nodejs22.x", "nodejs24.x", "python3.8", "python3.9", "python3.10"),
        *(
            "python3.11",
            "python3.12",
            "python3.13",
            "python3.14",
            "ruby3.2",
            "ruby3.3",
            "ruby3.4",
            "java8.al2",
            "java11",
        ),
        *("java17", "java21", "java25", "dotnet6", "dotnet8", "dotnet10", "provided.al2", "provided.al2023"),
    }
    since = {"ruby4.0", "nodejs26.x", "python3.15", "java8.al2023", "java11.al2023", "java17.al2023"}
    assert set(found[1].split(", ")) == recorded | since


RETIRED = ["java8", "go1.x", "provided", "ruby2.7", "nodejs14.x", "nodejs12.x", "python3.7", "dotnetcore3.1"]


@pytest.mark.parametrize("runtime", RETIRED)
def test_a_retired_runtime_is_refused_as_no_longer_supported(runtime: str) -> None:
    refused = refusal(*create(Runtime=runtime))
    assert refused.shape == "InvalidParameterValueException"
    assert refused.message == (
        f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
        "We recommend you use a supported runtime while creating or updating functions."
    )


def test_an_unknown_compatible_runtime_is_answered_as_if_the_list_were_one_value() -> None:
    layer = {"Content": {}, "CompatibleRuntimes": ["python3.13", "cobol85"]}
    refused = refusal("POST", "/2018-10-31/layers/l/versions", "", layer)
    begin = one("'[python3.13, cobol85]'", "compatibleRuntimes", "Member must satisfy enum value set: [")
    assert refused.shape == "ValidationException"
    assert refused.message.startswith(begin)
    named = set(refused.message.removeprefix(begin).removesuffix("]").split(", "))
    assert {"python3.13", "nodejs22.x", "provided.al2"} <= named
    assert not {"python2.7", "java8", "custom"} & named


def test_retired_runtimes_are_still_compatible_runtimes_of_a_layer() -> None:
    layer = {"Content": {}, "CompatibleRuntimes": ["python2.7", "java8"]}
    assert parse("POST", "/2018-10-31/layers/l/versions", "", layer)["CompatibleRuntimes"] == ["python2.7", "java8"]


PUBLISHED = "$LATEST.PUBLISHED"
PROVIDER = "/2025-11-30"


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("POST", "/2015-03-31/functions/f/invocations", f"Qualifier={PUBLISHED}", None),
        ("POST", "/2021-11-15/functions/f/response-streaming-invocations", f"Qualifier={PUBLISHED}", None),
        ("GET", "/2015-03-31/functions/f", f"Qualifier={PUBLISHED}", None),
        ("GET", "/2015-03-31/functions/f/configuration", f"Qualifier={PUBLISHED}", None),
        ("GET", f"/2015-03-31/functions/f:{PUBLISHED}", "", None),
        ("DELETE", "/2015-03-31/functions/f", f"Qualifier={PUBLISHED}", None),
        (
            "POST",
            "/2015-03-31/functions/f/policy",
            f"Qualifier={PUBLISHED}",
            {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "*"},
        ),
        ("PUT", "/2019-09-25/functions/f/event-invoke-config", f"Qualifier={PUBLISHED}", {"MaximumRetryAttempts": 1}),
        ("POST", "/2015-03-31/event-source-mappings", "", {"FunctionName": f"f:{PUBLISHED}"}),
        ("GET", "/2025-12-01/functions/f/durable-executions", f"Qualifier={PUBLISHED}", None),
        ("POST", "/2015-03-31/functions/f/aliases", "", {"Name": "a", "FunctionVersion": PUBLISHED}),
        ("PUT", f"{PROVIDER}/functions/f/function-scaling-config", f"Qualifier={PUBLISHED}", {}),
        ("GET", f"{PROVIDER}/functions/f/function-scaling-config", f"Qualifier={PUBLISHED}", None),
    ],
)
def test_latest_published_is_a_qualifier_where_managed_instances_need_it(
    method: str, path: str, query: str, body: object
) -> None:
    assert parse(method, path, query, body)


def test_items_of_lists_and_entries_of_maps_are_named_by_position_and_key() -> None:
    match = LOGS.match("POST", b"/", b"", {"x-amz-target": "Logs_20140328.PutLogEvents"})
    events = [{"timestamp": 1, "message": "fine"}, {"timestamp": -1}]
    body = {"logGroupName": "g", "logStreamName": "s", "logEvents": events}
    with pytest.raises(DomainError) as refused:
        LOGS.parse(match, {}, json.dumps(body).encode())
    assert refused.value.message == (
        "2 validation errors detected: "
        "Value '-1' at 'logEvents.2.member.timestamp' failed to satisfy constraint: Member must have value greater than or equal to 0; "
        "Value null at 'logEvents.2.member.message' failed to satisfy constraint: Member must not be null"
    )
    servers = {"KAFKA_BOOTSTRAP_SERVERS": ["no port"]}
    source = {"FunctionName": "f", "SelfManagedEventSource": {"Endpoints": servers}}
    refused_entry = refusal("POST", "/2015-03-31/event-source-mappings", "", source)
    assert refused_entry.message.startswith(
        "1 validation error detected: "
        "Value '[no port]' at 'selfManagedEventSource.endpoints.KAFKA_BOOTSTRAP_SERVERS.member' failed to satisfy constraint: "
        "Member must satisfy constraint: [Member must have length less than or equal to 300, "
    )


def test_a_collection_in_a_map_is_reported_once() -> None:
    source = {"FunctionName": "f", "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": []}}}
    assert refusal("POST", "/2015-03-31/event-source-mappings", "", source).message == one(
        "'{KAFKA_BOOTSTRAP_SERVERS=[]}'",
        "selfManagedEventSource.endpoints",
        "Map value must satisfy constraint: [Member must have length less than or equal to 10, "
        "Member must have length greater than or equal to 1, Member must not be null]",
    )


def test_logs_answers_broken_constraints_as_invalid_parameter_unless_it_models_a_validation_exception() -> None:
    def code(operation: str) -> str:
        match = LOGS.match("POST", b"/", b"", {"x-amz-target": f"Logs_20140328.{operation}"})
        with pytest.raises(DomainError) as refused:
            LOGS.parse(match, {}, b"{}")
        return refused.value.shape

    assert code("CreateLogGroup") == "InvalidParameterException"
    assert code("CreateDelivery") == "ValidationException"


def test_a_huge_value_is_neither_echoed_nor_matched_and_many_errors_are_cut_off() -> None:
    refused = refusal(*create(Handler="a b" * 100_000, Description="d" * 1_000_000))
    assert len(refused.message) < 3 * validate.MAX_ECHO_CHARACTERS
    assert refused.message.startswith("2 validation errors detected")
    many = [{"timestamp": -1, "message": "m"}] * 9000
    match = LOGS.match("POST", b"/", b"", {"x-amz-target": "Logs_20140328.PutLogEvents"})
    with pytest.raises(DomainError, match=f"^{validate.MAX_ERRORS} validation errors"):
        LOGS.parse(match, {}, json.dumps({"logGroupName": "g", "logStreamName": "s", "logEvents": many}).encode())


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**62])
def test_an_integer_that_java_cannot_hold_is_refused_even_where_the_model_has_no_bound(number: int) -> None:
    match = LAMBDA.match("PUT", b"/2017-10-31/functions/f/concurrency", b"", {})
    with pytest.raises(DomainError) as refused:
        LAMBDA.parse(match, {}, json.dumps({"ReservedConcurrentExecutions": number}).encode())
    assert refused.value.shape == "ValidationException"
