"""Every operation of the model that answers in pages: whole in any page size, in one order, and markers that no page ended with are refused."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.durable import create_durable, finished, start_execution
from tests.harness import FUNCTIONS, ROLE, Server, create_provider, package, running, wait_active
from tests.parity.steps import REALM, SOURCE, Source, Step, hold, invalid

from lambstead.wire.gateway import AwsApi

API = AwsApi.load("lambda")
F = "parity-lists-b"
FLOW = "parity-lists-flow"
MANAGED = {
    "LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": f"{REALM}:capacity-provider:lists-a"}
}
SUBNETS = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
OPERATOR = {"CapacityProviderOperatorRoleArn": ROLE}


@dataclass(frozen=True)
class Listed:
    """A list operation on what the fixture made."""

    operation: str
    """By the name in the model."""
    member: str
    """The list in the answer."""
    key: Callable[[Any], Any]
    """Of an item; what the order is by."""
    request: Mapping[str, Any] = field(default_factory=dict)
    is_descending: bool = False
    least: int = 3
    """Items that the fixture made at least."""

    def ask(self, aws: Any, **members: Any) -> Any:  # boto3's client, requests and answers of every list
        return getattr(aws, aws.method_names[self.operation])(**self.request, **members)


def ordinal(version: str) -> int:
    return {"$LATEST": -1, "$LATEST.PUBLISHED": 0}.get(version) or int(version)


def arn_key(arn: str) -> tuple[str, int]:
    *_, name, version = arn.split(":")
    return name, ordinal(version)


LISTS = [
    Listed("ListFunctions", "Functions", lambda f: f["FunctionName"]),
    Listed(
        "ListFunctions",
        "Functions",
        lambda f: (f["FunctionName"], ordinal(f["Version"])),
        {"FunctionVersion": "ALL"},
        least=8,
    ),
    Listed("ListVersionsByFunction", "Versions", lambda v: ordinal(v["Version"]), {"FunctionName": F}, least=4),
    Listed("ListAliases", "Aliases", lambda a: a["Name"], {"FunctionName": F}),
    Listed("ListAliases", "Aliases", lambda a: a["Name"], {"FunctionName": F, "FunctionVersion": "1"}, least=2),
    Listed("ListFunctionUrlConfigs", "FunctionUrlConfigs", lambda u: u["FunctionArn"], {"FunctionName": F}),
    Listed(
        "ListFunctionEventInvokeConfigs", "FunctionEventInvokeConfigs", lambda c: c["FunctionArn"], {"FunctionName": F}
    ),
    Listed(
        "ListProvisionedConcurrencyConfigs",
        "ProvisionedConcurrencyConfigs",
        lambda c: c["FunctionArn"],
        {"FunctionName": F},
        least=2,
    ),
    Listed("ListLayers", "Layers", lambda layer: layer["LayerName"]),
    Listed("ListLayerVersions", "LayerVersions", lambda v: v["Version"], {"LayerName": "lists-a"}, is_descending=True),
    Listed("ListEventSourceMappings", "EventSourceMappings", lambda m: m["UUID"]),
    Listed("ListCodeSigningConfigs", "CodeSigningConfigs", lambda c: c["CodeSigningConfigId"]),
    Listed("ListFunctionsByCodeSigningConfig", "FunctionArns", str),
    Listed("ListCapacityProviders", "CapacityProviders", lambda p: p["CapacityProviderArn"]),
    Listed(
        "ListFunctionVersionsByCapacityProvider",
        "FunctionVersions",
        lambda v: arn_key(v["FunctionArn"]),
        {"CapacityProviderName": "lists-a"},
    ),
    Listed(
        "ListDurableExecutionsByFunction",
        "DurableExecutions",
        lambda e: e["StartTimestamp"],
        {"FunctionName": FLOW},
        is_descending=True,
    ),
    Listed("GetDurableExecutionHistory", "Events", lambda e: e["EventId"]),
    Listed("GetDurableExecutionHistory", "Events", lambda e: e["EventId"], {"ReverseOrder": True}, is_descending=True),
]
ELSEWHERE = {"GetDurableExecutionState"}
"""Only the running invocation of an execution has the token for it: tests/flows/test_durable_functions.py."""


@pytest.fixture(scope="module")
def server(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("lists")) as server:
        yield server


class _World:
    """What the lists are of. Names are made out of order, so that an order is not one of creation by chance."""

    def __init__(self, aws: Any) -> None:
        self.aws = aws
        self._functions()
        self._layers_and_mappings()
        for name in ("c", "a", "b"):
            create_provider(aws, f"lists-{name}", VpcConfig=SUBNETS)
        for name in ("managed-c", "managed-a", "managed-b"):
            self._function(f"parity-lists-{name}", CapacityProviderConfig=MANAGED)
        create_durable(aws, FLOW, (FUNCTIONS / "workflows.py").read_text())
        self.executions = [start_execution(aws, FLOW, {"do": "many_steps", "steps": 1}) for _ in range(3)]
        for arn in self.executions:
            finished(aws, arn)

    def known(self, listed: Listed) -> Listed:
        """The list with the names in its request that only making them told."""
        own = {
            "ListFunctionsByCodeSigningConfig": {"CodeSigningConfigArn": self.signing},
            "GetDurableExecutionHistory": {"DurableExecutionArn": self.executions[0]},
        }
        request = {**listed.request, **own.get(listed.operation, {})}
        return Listed(listed.operation, listed.member, listed.key, request, listed.is_descending, listed.least)

    def _function(self, name: str, **members: Any) -> None:  # members of the request
        code = {"ZipFile": package(SOURCE)}
        self.aws.create_function(
            FunctionName=name, Runtime="python3.13", Handler="app.handler", Role=ROLE, Code=code, **members
        )

    def _functions(self) -> None:
        signers = {
            "SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/0123456789"]
        }
        configs = [self.aws.create_code_signing_config(AllowedPublishers=signers) for _ in range(3)]
        self.signing = configs[0]["CodeSigningConfig"]["CodeSigningConfigArn"]
        for name in ("parity-lists-c", "parity-lists-a", F):
            self._function(name)
            wait_active(self.aws, name, "$LATEST")
            self.aws.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=self.signing)
        for number in range(1, 4):
            self.aws.update_function_configuration(FunctionName=F, Description=str(number))
            wait_active(self.aws, F, "$LATEST")
            self.aws.publish_version(FunctionName=F)
        for name, version in (("z", "1"), ("x", "2"), ("y", "1")):
            alias = {"FunctionName": F, "Qualifier": name}
            self.aws.create_alias(FunctionName=F, Name=name, FunctionVersion=version)
            self.aws.create_function_url_config(**alias, AuthType="NONE")
            self.aws.put_function_event_invoke_config(**alias, MaximumRetryAttempts=1)
        for name in ("z", "x"):
            self.aws.put_provisioned_concurrency_config(
                FunctionName=F, Qualifier=name, ProvisionedConcurrentExecutions=1
            )

    def _layers_and_mappings(self) -> None:
        for name in ("c", "a", "b", "a", "a"):
            self.aws.publish_layer_version(LayerName=f"lists-{name}", Content={"ZipFile": package(SOURCE)})
        for number in range(3):
            queue = f"arn:aws:sqs:us-east-1:000000000000:lists-{number}"
            self.aws.create_event_source_mapping(FunctionName=F, EventSourceArn=queue)


@pytest.fixture(scope="module")
def world(server: Server) -> _World:
    return _World(server.aws)


@pytest.fixture
def aws(world: _World) -> Any:  # boto3's client, with operations that its types do not know
    world.aws.method_names = {operation: name for name, operation in world.aws.meta.method_to_api_mapping.items()}
    return world.aws


def test_every_list_of_the_model_is_here() -> None:
    operations = (API.model.operation_model(name) for name in API.operations)
    paged = {each.name for each in operations if each.input_shape and "Marker" in each.input_shape.members}
    assert paged == {listed.operation for listed in LISTS} | ELSEWHERE


names = pytest.mark.parametrize("listed", LISTS, ids=lambda each: "-".join((each.operation, *each.request)))


@names
def test_a_list_is_whole_and_in_order_whatever_the_page_size(listed: Listed, world: _World, aws: Any) -> None:
    listed = world.known(listed)
    answer = listed.ask(aws)
    assert "NextMarker" not in answer
    keys = [listed.key(item) for item in answer[listed.member]]
    assert keys == sorted(keys, reverse=listed.is_descending)
    assert len(keys) >= listed.least
    for size in (1, 2, len(keys)):
        seen, marker = list[Any](), dict[str, str]()  # items of any list
        for _ in range(len(keys) + 1):
            part = listed.ask(aws, MaxItems=size, **marker)
            assert len(part[listed.member]) <= size
            seen += part[listed.member]
            if "NextMarker" not in part:
                break
            assert len(part[listed.member]) == size
            marker = {"Marker": part["NextMarker"]}
        assert [listed.key(item) for item in seen] == keys


@names
@pytest.mark.parametrize("marker", ["nonsense", "bm9uc2Vuc2U=", "W10=", "W251bGxd", "eyJhIjoxfQ=="])
def test_a_marker_that_no_page_ended_with_is_refused(listed: Listed, marker: str, world: _World, aws: Any) -> None:
    """Text, Base64 of text, of an empty list, of `[null]`, of an object."""
    with pytest.raises(ClientError) as refused:
        world.known(listed).ask(aws, Marker=marker)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@names
def test_a_page_is_not_larger_than_the_model_allows(listed: Listed, world: _World, aws: Any) -> None:
    shape = API.model.operation_model(listed.operation).input_shape
    assert shape is not None
    most = shape.members["MaxItems"].metadata["max"]
    assert len(world.known(listed).ask(aws, MaxItems=most)[listed.member]) >= listed.least
    with pytest.raises(ClientError) as refused:
        world.known(listed).ask(aws, MaxItems=most + 1)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert f"less than or equal to {most}" in refused.value.response["Error"]["Message"]


def test_what_is_deleted_between_two_pages_loses_nothing_else(world: _World, aws: Any) -> None:
    names = ["gone-a", "gone-b", "gone-c"]
    for name in names:
        aws.publish_layer_version(LayerName=name, Content={"ZipFile": package(SOURCE)})
    before = [layer["LayerName"] for layer in aws.list_layers()["Layers"]]
    first = aws.list_layers(MaxItems=2)
    assert [layer["LayerName"] for layer in first["Layers"]] == before[:2] == names[:2]
    aws.delete_layer_version(LayerName="gone-b", VersionNumber=1)
    rest = aws.list_layers(Marker=first["NextMarker"])
    assert [layer["LayerName"] for layer in rest["Layers"]] == before[2:]


def test_versions_of_all_functions_are_listed_with_qualified_arns(aws: Any) -> None:
    """Recorded: with FunctionVersion ALL, ARNs are qualified, also with `$LATEST`; states are left out of both lists."""
    for how, suffix in (({}, ""), ({"FunctionVersion": "ALL"}, ":$LATEST")):
        [found] = [
            f for f in aws.list_functions(**how)["Functions"] if (f["FunctionName"], f["Version"]) == (F, "$LATEST")
        ]
        assert found["FunctionArn"] == f"{REALM}:function:{F}{suffix}"
        assert not {"State", "LastUpdateStatus", "RuntimeVersionConfig"} & set(found)


def test_only_replicas_have_a_master_region(aws: Any) -> None:
    """The model's documentation: a region filters for what Lambda@Edge replicated from there, and needs FunctionVersion ALL."""
    everything = aws.list_functions(FunctionVersion="ALL")["Functions"]
    assert aws.list_functions(FunctionVersion="ALL", MasterRegion="ALL")["Functions"] == everything
    for region in ("us-east-1", "eu-west-1"):
        assert aws.list_functions(FunctionVersion="ALL", MasterRegion=region)["Functions"] == []
    alone = Step(
        "list_functions",
        {"MasterRegion": "us-east-1"},
        invalid("FunctionVersion must be ALL when MasterRegion is given."),
        Source.OURS,
    )
    hold(aws, [alone], {})
