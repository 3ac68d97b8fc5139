"""Every operation of Lambda's model, asked by a real client's bytes: what is right is never called wrong, what is wrong is named.

Each operation gets at least 20 requests that its model admits, to resources that exist and that do not, and at least 20 that are right but
for one thing. Every answer must be one that the model has for the operation. An operation that is not built says so by name.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.generated.answers import code_of, faults
from tests.generated.requests import Break, Sent, invalid, valid
from tests.generated.world import World
from tests.harness import Server
from tests.raw_client import RawClient

from lambstead.api.configurations import NOT_YET
from lambstead.api.operations import LAMBDA
from lambstead.wire.gateway import AwsApi, HttpResponse

API = AwsApi.load("lambda")
OPERATIONS = sorted(API.operations)
LEAST = 20
REFUSED_MEMBERS = frozenset({*NOT_YET, "PackageType", "S3Bucket", "S3Key", "S3ObjectVersion", "ImageUri"})
FALSE_ALARMS = {"ValidationException", "SerializationException", "UnknownOperationException"}
"""What no request that the model admits may be answered with …"""
STANDARD_SIZES = re.compile(
    rb"'(MemorySize|Timeout|EphemeralStorage.Size)' value failed .* less than or equal to (10240|900)\""
)
"""… but for sizes that only managed functions may have."""

generated = settings(
    # No shrinking and no replay: the server's state goes on from request to request. The same requests in every run.
    max_examples=max(LEAST + 4, settings().max_examples // 10),
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Asked:
    """A client, the resources it may hit, and what came of it."""

    client: RawClient
    world: World
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def send(self, request: Sent) -> HttpResponse:
        return self.client.send(request.method, request.path, request.query, request.headers, request.body)


@pytest.fixture(scope="module")
def asked(server: Server) -> Iterator[Asked]:
    with RawClient(server.url) as client:
        yield Asked(client, World(API, client))


def is_not_built(name: str, response: HttpResponse) -> bool:
    """The answer that an operation must give that is not in the registry, and no other may."""
    return response.status == 501 and code_of(response) == "ServiceException" and name.encode() in response.body


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_that_the_model_admits(name: str, asked: Asked) -> None:
    operation = API.model.operation_model(name)
    asked.world.restore()
    inputs = asked.world.inputs()
    sent, successes, problems = 0, 0, list[str]()

    @generated
    @given(valid(API, operation, inputs, REFUSED_MEMBERS, asked.world.aimed(name)))
    def check(request: Sent) -> None:
        nonlocal sent, successes
        response = asked.send(request)
        sent += 1
        successes += response.status < 400
        asked.answers[name, code_of(response) or "success"] += 1
        if name not in LAMBDA:
            found = [] if is_not_built(name, response) else [f"not built, but answered {response.status}"]
        else:
            found = list(faults(API, operation, response))
            if code_of(response) in FALSE_ALARMS and STANDARD_SIZES.search(response.body) is None:
                found.append(f"{code_of(response)} to a valid request: {response.body[:300]!r}")
        problems.extend(f"{problem}\n    {request}" for problem in found)

    check()
    assert problems == []
    assert sent >= LEAST
    if name in LAMBDA and "Durable" not in name:  # there is no durable execution in the world yet
        assert successes > 0, f"none succeeded: {[item for item in asked.answers.items() if item[0][0] == name]}"


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_with_one_thing_wrong(name: str, asked: Asked) -> None:
    operation = API.model.operation_model(name)
    inputs = asked.world.inputs()
    sent, problems = 0, list[str]()

    @generated
    @given(invalid(API, operation, inputs))
    def check(request: tuple[Sent, Break]) -> None:
        nonlocal sent
        message, wrong = request
        response = asked.send(message)
        sent += 1
        code = code_of(response)
        found = list(faults(API, operation, response))
        if code != wrong.code:
            found.append(f"{code or response.status} instead of {wrong.code}: {response.body[:300]!r}")
        problems.extend(f"{problem}\n    {message}" for problem in found)

    check()
    assert problems == []
    assert sent >= LEAST
