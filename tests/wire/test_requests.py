"""Reading requests: what is lenient, what is refused and in which words; locations that the served models do not use yet."""

import datetime
import json
from typing import Any
from urllib.parse import quote

import pytest
from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from lambstead.core.errors import DomainError, Serialization
from lambstead.wire import json_protocols
from lambstead.wire.gateway import AwsApi
from lambstead.wire.models import Model

LAMBDA = AwsApi.load("lambda")
LOGS = AwsApi.load("logs")
ROLE = "arn:aws:iam::000000000000:role/r"
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 15, tzinfo=datetime.UTC)


def create(body: bytes) -> dict[str, Any]:
    return LAMBDA.parse(LAMBDA.match("POST", b"/2015-03-31/functions", b"", {}), {}, body)


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("Timeout", "3", "STRING_VALUE can not be converted to an Integer"),
        ("Timeout", True, "TRUE_VALUE can not be converted to an Integer"),
        ("Timeout", False, "FALSE_VALUE can not be converted to an Integer"),
        ("Timeout", 3.5, "NUMBER_VALUE can not be converted to an Integer"),
        ("Timeout", 2**64, "NUMBER_VALUE can not be converted to an Integer"),
        ("Timeout", [3], "Start of list found where not expected"),
        ("Timeout", {}, "Start of structure or map found where not expected."),
        ("Handler", 1, "NUMBER_VALUE can not be converted to a String"),
        ("Handler", [], "Start of list found where not expected"),
        ("Publish", "true", "STRING_VALUE can not be converted to a Boolean"),
        ("Publish", 1, "NUMBER_VALUE can not be converted to a Boolean"),
        ("Layers", "arn", "Expected list or null"),
        ("Layers", {}, "Start of structure or map found where not expected."),
        ("Tags", "a=b", "Expected null"),
        ("Tags", [], "Start of list found where not expected"),
        ("Code", 1, "Expected null"),
        ("Code", [], "Start of list found where not expected"),
        ("Code", {"ZipFile": 1}, "NUMBER_VALUE can not be converted to Base64"),
        ("Code", {"ZipFile": "a"}, "STRING_VALUE can not be converted to Base64: it is not valid base64 text"),
        ("Code", {"ZipFile": "YWJj\n"}, "STRING_VALUE can not be converted to Base64: it is not valid base64 text"),
        ("Code", {"ZipFile": "é==="}, "STRING_VALUE can not be converted to Base64: it is not valid base64 text"),
    ],
)
def test_a_value_of_the_wrong_json_type_is_refused_in_aws_words(member: str, value: object, words: str) -> None:
    with pytest.raises(Serialization) as refused:
        create(json.dumps({"FunctionName": "f", "Role": ROLE, "Code": {}, member: value}).encode())
    assert refused.value.message == words
    response = LAMBDA.fail("CreateFunction", refused.value, "r")
    assert response.status == 400
    assert ("x-amzn-ErrorType", "SerializationException") in response.headers


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1",
        b'{"a":}',
        b"nope",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": "\xff"}',
        b'"\\ud800"',
        b"[" * 100_000,
        b"{} {}",
        b"\x00",
    ],
)
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(Serialization, match=r"^Could not parse request body into json"):
        create(body)


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1", b"true"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Serialization):
        create(body)


def test_null_is_absent_and_unknown_members_are_ignored() -> None:
    body: dict[str, Any] = {
        "FunctionName": "f",
        "Role": ROLE,
        "Code": {"ZipFile": None, "FromTheFuture": {}},
        "Handler": None,
        "Newer": [1],
    }
    assert create(json.dumps(body).encode()) == {"FunctionName": "f", "Role": ROLE, "Code": {}}


def test_whole_numbers_are_read_with_and_without_a_fraction() -> None:
    body = b'{"FunctionName":"f","Role":"%s","Code":{},"Timeout":3.0,"MemorySize":2.048e3}' % ROLE.encode()
    parameters = create(body)
    assert parameters["Timeout"] == 3
    assert type(parameters["Timeout"]) is int
    assert parameters["MemorySize"] == 2048


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (b"MaxItems=ten", "STRING_VALUE can not be converted to an Integer"),
        (b"MaxItems=", "STRING_VALUE can not be converted to an Integer"),
        (b"MaxItems=1_000", "STRING_VALUE can not be converted to an Integer"),
        (b"MaxItems=%D9%A1", "STRING_VALUE can not be converted to an Integer"),
        (b"MaxItems=" + b"9" * 5000, "STRING_VALUE can not be converted to an Integer"),
        (b"Marker=%ff", "The query string of the request is not UTF-8 after percent-decoding."),
        (b"&".join([b"a=b"] * 1001), "The query string has 1001 parts; at most 1000 are read."),
    ],
)
def test_bad_query_strings_are_refused(query: bytes, words: str) -> None:
    with pytest.raises(Serialization) as refused:
        LAMBDA.parse(LAMBDA.match("GET", b"/2015-03-31/functions", query, {}), {}, b"")
    assert refused.value.message == words


def test_query_strings_are_decoded_as_forms() -> None:
    assert json_protocols.parse_query(b"a=1&a=2&&b=x+y%2B&c&=d&e=f=g") == {
        "a": ["1", "2"],
        "b": ["x y+"],
        "c": [""],
        "": ["d"],
        "e": ["f=g"],
    }


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-29T12:30:15Z",
        "2024-02-29T13:30:15+01:00",
        "2024-02-29T12:30:15",
        "1709209815",
        "1709209815.0",
        "Thu, 29 Feb 2024 12:30:15 GMT",
    ],
)
def test_timestamps_are_read_in_every_format(text: str) -> None:
    path = b"/2025-12-01/functions/f/durable-executions"
    match = LAMBDA.match("GET", path, b"StartedAfter=" + text.replace("+", "%2B").encode(), {})
    assert LAMBDA.parse(match, {}, b"")["StartedAfter"] == MOMENT


@pytest.mark.parametrize(
    "text", ["yesterday", "", "9" * 30, "2024-13-01", "NaN", "inf", "Thu, 99 Feb 2024", "-1e400", "٣"]
)
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    match = LAMBDA.match(
        "GET", b"/2025-12-01/functions/f/durable-executions", f"StartedAfter={quote(text)}".encode(), {}
    )
    with pytest.raises(Serialization, match="STRING_VALUE can not be converted to milliseconds since epoch"):
        LAMBDA.parse(match, {}, b"")


def test_the_payload_of_invoke_is_the_body_byte_for_byte_and_absent_when_empty() -> None:
    match = LAMBDA.match("POST", b"/2015-03-31/functions/f/invocations", b"", {})
    headers = {"x-amz-invocation-type": "Event", "x-amz-log-type": "Tail", "host": "h"}
    assert LAMBDA.parse(match, headers, b"\xff not json") == {
        "FunctionName": "f",
        "InvocationType": "Event",
        "LogType": "Tail",
        "Payload": b"\xff not json",
    }
    assert LAMBDA.parse(match, {}, b"") == {"FunctionName": "f"}


def test_a_required_payload_may_be_empty() -> None:
    api = AwsApi.load("apigateway")
    match = api.match("POST", b"/restapis", b"mode=import", {})
    assert api.parse(match, {}, b"") == {"body": b""}


def test_exactly_one_member_of_a_union_is_set() -> None:
    match = LOGS.match("POST", b"/", b"", {"x-amz-target": "Logs_20140328.PutIntegration"})
    config = {"dataSourceRoleArn": "a", "dashboardViewerPrincipals": [], "retentionDays": 1}
    body = {
        "integrationName": "i",
        "integrationType": "OPENSEARCH",
        "resourceConfig": {"openSearchResourceConfig": config},
    }
    assert LOGS.parse(match, {}, json.dumps(body).encode()) == body
    with pytest.raises(Serialization, match=r"exactly one of openSearchResourceConfig must be set, 0 are"):
        LOGS.parse(match, {}, json.dumps({**body, "resourceConfig": {}}).encode())


def test_bodies_above_the_limit_are_refused_with_the_limit_named() -> None:
    limit = LAMBDA.facts("CreateFunction").max_body_bytes
    with pytest.raises(DomainError) as refused:
        create(b" " * (limit + 1))
    assert refused.value.message == "Request must be smaller than 70167211 bytes for the CreateFunction operation"
    response = LAMBDA.fail("CreateFunction", refused.value, "r")
    assert response.status == 413
    assert json.loads(response.body) == {"message": refused.value.message}


# --- locations that the served models do not use: a made-up service, read and written by botocore ---------------------

MADE_UP = Model(
    {
        "metadata": {
            "protocol": "rest-json",
            "endpointPrefix": "made-up",
            "signingName": "made-up",
            "apiVersion": "2024-01-01",
        },
        "operations": {
            "Put": {
                "name": "Put",
                "http": {"method": "PUT", "requestUri": "/things/{Key+}", "responseCode": 201},
                "input": {"shape": "Everything"},
                "output": {"shape": "Everything"},
            }
        },
        "shapes": {
            "Everything": {
                "type": "structure",
                "required": ["Key"],
                "members": {
                    "Key": {"shape": "Text", "location": "uri", "locationName": "Key"},
                    "Meta": {"shape": "TextMap", "location": "headers", "locationName": "x-meta-"},
                    "Json": {"shape": "Text", "location": "header", "locationName": "x-json", "jsonvalue": True},
                    "Since": {"shape": "Time", "location": "header", "locationName": "If-Modified-Since"},
                    "Iso": {"shape": "IsoTime", "location": "header", "locationName": "x-iso"},
                    "Names": {"shape": "TextList", "location": "header", "locationName": "x-names"},
                    "Sizes": {"shape": "LongList", "location": "header", "locationName": "x-sizes"},
                    "Dates": {"shape": "TimeList", "location": "header", "locationName": "x-dates"},
                    "Loud": {"shape": "Flag", "location": "header", "locationName": "x-loud"},
                    "Ratio": {"shape": "Ratio", "location": "header", "locationName": "x-ratio"},
                    "Filters": {"shape": "TextListMap", "location": "querystring"},
                    "Before": {"shape": "Time", "location": "querystring", "locationName": "before"},
                    "Quiet": {"shape": "Flag", "location": "querystring", "locationName": "quiet"},
                    "At": {"shape": "Time"},
                    "AtIso": {"shape": "IsoTime"},
                    "AtHttp": {"shape": "HttpTime"},
                    "Tree": {"shape": "Tree"},
                    "Free": {"shape": "Document"},
                    "Blobs": {"shape": "BlobMap"},
                    "Renamed": {"shape": "Text", "locationName": "other-name"},
                },
            },
            "Tree": {"type": "structure", "members": {"Label": {"shape": "Short"}, "Children": {"shape": "Trees"}}},
            "Trees": {"type": "list", "member": {"shape": "Tree"}},
            "Document": {"type": "structure", "members": {}, "document": True},
            "BlobMap": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Blob"}},
            "Blob": {"type": "blob"},
            "Text": {"type": "string"},
            "Short": {"type": "string", "max": 3},
            "TextMap": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "Text"}},
            "TextListMap": {"type": "map", "key": {"shape": "Text"}, "value": {"shape": "TextList"}},
            "TextList": {"type": "list", "member": {"shape": "Text"}},
            "LongList": {"type": "list", "member": {"shape": "Long"}},
            "TimeList": {"type": "list", "member": {"shape": "Time"}},
            "Long": {"type": "long"},
            "Flag": {"type": "boolean"},
            "Ratio": {"type": "double"},
            "Time": {"type": "timestamp"},
            "IsoTime": {"type": "timestamp", "timestampFormat": "iso8601"},
            "HttpTime": {"type": "timestamp", "timestampFormat": "rfc822"},
        },
    },
    "made-up",
)
API = AwsApi(MADE_UP)
IN_HEADERS: dict[str, Any] = {
    "Meta": {"colour": "red", "size": "9"},
    "Json": {"deep": [1, None, "é"]},
    "Since": MOMENT,
    "Iso": MOMENT,
    "Names": ["plain", "with, comma", 'with "quotes"', "back\\slash, too"],
    "Sizes": [1, 2**40],
    "Dates": [MOMENT, MOMENT + datetime.timedelta(days=1)],
    "Loud": True,
    "Ratio": 0.5,
}
IN_THE_QUERY: dict[str, Any] = {"Filters": {"a": ["1", "2"], "b": [""]}, "Before": MOMENT, "Quiet": False}
IN_THE_BODY: dict[str, Any] = {
    "At": MOMENT + datetime.timedelta(milliseconds=250),
    "AtIso": MOMENT + datetime.timedelta(milliseconds=7),
    "AtHttp": MOMENT,
    "Tree": {"Label": "a", "Children": [{"Label": "b"}, {"Children": [{"Label": "c"}]}]},
    "Free": {"anything": [1, {"goes": None}]},
    "Blobs": {"zip": b"\x00\xff"},
    "Renamed": "x",
}


def test_every_location_of_a_request_is_read_as_botocore_writes_it() -> None:
    params = {"Key": "deep/path with blanks", **IN_HEADERS, **IN_THE_QUERY, **IN_THE_BODY}
    serialized = create_serializer("rest-json").serialize_to_request(params, MADE_UP.operation_model("Put"))
    # botocore escapes quotes in header lists, but not backslashes; the text below is what RFC 9110 asks for.
    serialized["headers"]["x-names"] = r'plain,"with, comma","with \"quotes\"","back\\slash, too"'
    serialized["context"] = {}
    prepare_request_dict(serialized, "http://127.0.0.1", context={})
    request = create_request_object(serialized).prepare()
    path, _, query = request.url.removeprefix("http://127.0.0.1").partition("?")
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    assert API.parse(API.match("PUT", path.encode(), query.encode(), {}), headers, request.body) == params


def test_every_location_of_a_response_is_written_as_botocore_reads_it() -> None:
    result = {**IN_HEADERS, **IN_THE_BODY, "Names": ["a", "b"], "Dates": None, "Renamed": None}
    response = API.respond("Put", result, "r")
    shape = MADE_UP.operation_model("Put").output_shape
    assert shape is not None
    raw = {"status_code": response.status, "headers": HeadersDict(response.headers), "body": response.body}
    parsed = create_parser("rest-json").parse(raw, shape)
    assert parsed.pop("ResponseMetadata")["HTTPStatusCode"] == 201
    assert parsed == {name: value for name, value in result.items() if value is not None}


def test_constraints_reach_into_recursive_shapes() -> None:
    match = API.match("PUT", b"/things/x", b"", {})
    tree = {"Children": [{"Label": "ok"}, {"Children": [{"Label": "too long"}]}]}
    with pytest.raises(DomainError) as refused:
        API.parse(match, {}, json.dumps({"Tree": tree}).encode())
    assert refused.value.message == (
        "1 validation error detected: Value 'too long' at 'tree.children.2.member.children.1.member.label' failed to satisfy "
        "constraint: Member must have length less than or equal to 3"
    )


def test_nesting_beyond_our_stack_is_refused() -> None:
    deep = b'{"Tree":' + b'{"Children":[' * 450 + b"]}" * 450 + b"}"
    with pytest.raises(Serialization, match="nested too deeply"):
        API.parse(API.match("PUT", b"/things/x", b"", {}), {}, deep)


def test_a_header_member_cannot_end_its_line() -> None:
    response = API.respond("Put", {"Meta": {"a": "x\r\nSet-Cookie: y"}, "Names": ["a\nb"]}, "r")
    assert ("x-meta-a", "x  Set-Cookie: y") in response.headers
    assert ("x-names", "a b") in response.headers


@pytest.mark.parametrize("result", [{"Misspelt": 1}, {"Tree": {"misspelt": 1}}])
def test_a_result_with_a_misspelt_member_is_a_bug_of_ours(result: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="isspelt"):
        API.respond("Put", result, "r")


def test_a_time_without_a_zone_is_a_bug_of_ours() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        API.respond("Put", {"At": datetime.datetime(2024, 1, 1)}, "r")  # noqa: DTZ001 the point of the test
