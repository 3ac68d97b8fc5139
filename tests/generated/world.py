"""What generated requests may hit: a few resources of every kind, put back before each operation is asked, and values that name them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.model import Shape, StructureShape
from hypothesis import strategies as st
from tests.generated.answers import code_of
from tests.harness import OPERATOR, ROLE, archive, package, wait_for
from tests.raw_client import RawClient
from tests.wire.strategies import Generator, received, sent

from lambstead.wire import java
from lambstead.wire.gateway import AwsApi

REALM = "arn:aws:lambda:us-east-1:000000000000"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:queue"
PROVIDER = f"{REALM}:capacity-provider:pool"
SOURCE = "def handler(event, context):\n    return event\n"
CODE = {"ZipFile": package(SOURCE)}
FUNCTION = {"Runtime": "python3.13", "Handler": "app.handler", "Role": ROLE, "Code": CODE}
SUBNETS = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
MANAGED = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": PROVIDER}}
EXISTS = {"ResourceConflictException", "PublicPolicyException"}


class World:
    """The resources of one server. `uuid`, `signing` and `layer_version` are what the server chose."""

    def __init__(self, api: AwsApi, client: RawClient) -> None:
        self._api, self._client = api, client
        self._kept: dict[str, str] = {}
        self._inputs: dict[tuple[str, ...], Generator] = {}
        self.restore()

    def ask(self, operation: str, **params: Any) -> dict[str, Any]:
        """The answer, as botocore reads it. What exists already is no failure, any other refusal is."""
        model = self._api.model.operation_model(operation)
        response = self._client.send(*sent(model, params))
        parsed = received(model, response, model.output_shape, stream=False)
        assert response.status < 400 or code_of(response) in EXISTS, (operation, params, response.body)
        return parsed

    def restore(self) -> None:
        """Bring back what requests may have deleted or moved."""
        for name in ("pool", "spare"):
            if not self._has("GetCapacityProvider", CapacityProviderName=name):
                self._until_created(
                    "CreateCapacityProvider",
                    CapacityProviderName=name,
                    VpcConfig=SUBNETS,
                    PermissionsConfig={"CapacityProviderOperatorRoleArn": OPERATOR},
                    CapacityProviderScalingConfig={"MaxVCpuCount": 2},
                )
        self._restore_functions()
        if not self._has("GetLayerVersion", LayerName="lib", VersionNumber=self.layer_version):
            made = self.ask("PublishLayerVersion", LayerName="lib", Content={"ZipFile": archive({"python/lib.py": ""})})
            self._kept["layer"] = str(made["Version"])
        self._restore_settings()
        if not self._has("GetEventSourceMapping", UUID=self._kept.get("uuid", "0" * 36)):
            made = self.ask("CreateEventSourceMapping", FunctionName="std", EventSourceArn=QUEUE, Enabled=False)
            self._kept["uuid"] = made.get("UUID", self._kept.get("uuid", ""))
        if not self._has("GetCodeSigningConfig", CodeSigningConfigArn=self.signing):
            self._kept["signing"] = self._new_signing()

    @property
    def uuid(self) -> str:
        return self._kept["uuid"]

    @property
    def layer_version(self) -> int:
        return int(self._kept.get("layer", "1"))

    @property
    def signing(self) -> str:
        return self._kept.get("signing", f"{REALM}:code-signing-config:csc-{'0' * 17}")

    def _new_signing(self) -> str:
        profile = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/profile/0123456789"
        made = self.ask("CreateCodeSigningConfig", AllowedPublishers={"SigningProfileVersionArns": [profile]})
        return str(made["CodeSigningConfig"]["CodeSigningConfigArn"])

    def _restore_functions(self) -> None:
        for name, members in {
            "std": {},
            "other": {},
            "doomed": {},
            "mgd": {"CapacityProviderConfig": MANAGED, "Publish": True, "PublishTo": "LATEST_PUBLISHED"},
        }.items():
            if not self._has("GetFunction", FunctionName=name):
                self._until_created("CreateFunction", FunctionName=name, **FUNCTION, **members)
            wait_for(
                lambda name=name: self._settled(name),  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                f"{name} is settled",
            )
        if not self._has("GetFunctionConfiguration", FunctionName="mgd", Qualifier="$LATEST.PUBLISHED"):
            self._until_created("PublishVersion", FunctionName="mgd", PublishTo="LATEST_PUBLISHED")
        for name in ("std", "other"):
            if self._version(name) == "$LATEST":
                self.ask("PublishVersion", FunctionName=name)
        if not self._has("GetAlias", FunctionName="std", Name="live"):
            self.ask("CreateAlias", FunctionName="std", Name="live", FunctionVersion=self._version("std"))

    def _settled(self, name: str) -> bool:
        found = self.ask("GetFunctionConfiguration", FunctionName=name)
        return found["State"] not in ("Pending", "Deleting") and found.get("LastUpdateStatus") != "InProgress"

    def _restore_settings(self) -> None:
        for name in ("std", "other"):
            self.ask("DeleteFunctionConcurrency", FunctionName=name)
        # Created functions, of whatever name, may have it too, and it cannot be deleted while one has.
        if self._has("GetCodeSigningConfig", CodeSigningConfigArn=self.signing):
            for arn in self.ask("ListFunctionsByCodeSigningConfig", CodeSigningConfigArn=self.signing)["FunctionArns"]:
                self.ask("DeleteFunctionCodeSigningConfig", FunctionName=arn)
        if not self._has("GetFunctionUrlConfig", FunctionName="std"):
            self.ask("CreateFunctionUrlConfig", FunctionName="std", AuthType="NONE")
        if not self._has("GetProvisionedConcurrencyConfig", FunctionName="other", Qualifier=self._version("other")):
            self.ask(
                "PutProvisionedConcurrencyConfig",
                FunctionName="other",
                Qualifier=self._version("other"),
                ProvisionedConcurrentExecutions=1,
            )
        if not self._has("GetFunctionEventInvokeConfig", FunctionName="std"):
            self.ask("PutFunctionEventInvokeConfig", FunctionName="std", MaximumRetryAttempts=1)
        if not self._has("GetPolicy", FunctionName="std"):
            grant = {"Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
            self.ask("AddPermission", FunctionName="std", StatementId="s", **grant)
        if not self._has("GetLayerVersionPolicy", LayerName="lib", VersionNumber=self.layer_version):
            grant = {"Action": "lambda:GetLayerVersion", "Principal": "*"}
            self.ask(
                "AddLayerVersionPermission", LayerName="lib", VersionNumber=self.layer_version, StatementId="s", **grant
            )

    def _has(self, operation: str, **params: Any) -> bool:
        model = self._api.model.operation_model(operation)
        return self._client.send(*sent(model, params)).status < 400

    def _until_created(self, operation: str, **params: Any) -> None:
        """Create what may still be on its way out."""
        model = self._api.model.operation_model(operation)
        wait_for(lambda: self._client.send(*sent(model, params)).status < 400, f"{operation} {params}")

    def aimed(self, operation: str) -> dict[str, Any]:
        """Parameters that hit something, of operations whose right parameters chance rarely finds together."""
        version = {"FunctionName": "other", "Qualifier": self._version("other")}
        arn = f"{REALM}:function:std"
        statement = {"Sid": "s", "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "lambda:InvokeFunction"}
        policy = {"Version": "2012-10-17", "Statement": [{**statement, "Resource": arn}]}
        if operation == "DeleteCodeSigningConfig":  # one that no function has
            return {"CodeSigningConfigArn": self._new_signing()}
        aimed: dict[str, dict[str, Any]] = {
            "CreateFunction": FUNCTION,
            "UpdateFunctionCode": {"FunctionName": "std", **CODE},
            "UpdateFunctionConfiguration": {"FunctionName": "std"},
            "CreateEventSourceMapping": {"FunctionName": "std", "EventSourceArn": f"{QUEUE}-2", "BatchSize": 5},
            "DeleteCapacityProvider": {"CapacityProviderName": "spare"},
            "CreateAlias": {"FunctionName": "std", "FunctionVersion": "$LATEST"},
            "PutFunctionConcurrency": {"FunctionName": "std", "ReservedConcurrentExecutions": 5},
            "PutResourcePolicy": {"ResourceArn": arn, "Policy": json.dumps(policy)},
            "GetResourcePolicy": {"ResourceArn": arn},
            "DeleteResourcePolicy": {"ResourceArn": arn},
            "PutProvisionedConcurrencyConfig": {**version, "ProvisionedConcurrentExecutions": 1},
            "GetProvisionedConcurrencyConfig": version,
            "PutFunctionScalingConfig": {"FunctionName": "mgd", "Qualifier": "$LATEST.PUBLISHED"},
            "GetFunctionScalingConfig": {"FunctionName": "mgd", "Qualifier": "$LATEST.PUBLISHED"},
            "CreateFunctionUrlConfig": {"FunctionName": "other"},
            "AddLayerVersionPermission": {"LayerName": "lib", "VersionNumber": self.layer_version, "Principal": "*"},
        }
        return aimed.get(operation, {})

    def _version(self, function: str) -> str:
        """The number of the function's last version."""
        return str(self.ask("ListVersionsByFunction", FunctionName=function)["Versions"][-1]["Version"])

    def inputs(self) -> Generator:
        """Strategies of valid parameters that often name what is here."""
        chosen = tuple(self._kept.values())
        if chosen not in self._inputs:
            self._inputs = {chosen: Generator(constrained=True, known=self._known())}
        return self._inputs[chosen]

    def _known(self) -> dict[str, st.SearchStrategy[Any]]:
        """For shapes of the model by name, values that name what is here, or are of use here."""
        names = ["std", "std:1", "std:live", "other", "doomed", "mgd", "mgd:$LATEST.PUBLISHED", "nobody"]
        arns = [f"{REALM}:function:{name}" for name in names]
        partial = ["000000000000:function:std", "function:std", "arn:aws:lambda:eu-west-1:000000000000:function:std"]
        functions = [*names, *names, *arns, *partial]
        version = self._version("std")
        qualifiers = [version, version, "live", "$LATEST", "2", "absent", "$LATEST.PUBLISHED"]
        resources = [*arns[:3], PROVIDER, self.signing, f"{REALM}:event-source-mapping:{self.uuid}"]
        candidates: dict[str, Sequence[Any]] = {
            "FunctionName": functions,
            "NamespacedFunctionName": functions,
            "UnqualifiedFunctionName": functions,
            "FunctionUrlFunctionName": functions,
            "Qualifier": qualifiers,
            "NumericLatestPublishedOrAliasQualifier": qualifiers,
            "PublishedFunctionQualifier": qualifiers,
            "FunctionUrlQualifier": qualifiers,
            "VersionWithLatestPublished": [version, version, "2", "$LATEST", "99"],
            "AdditionalVersion": ["1", "2", "99"],
            "Alias": ["live", "live", "next", "other"],
            "CapacityProviderName": ["pool", "pool", "absent", PROVIDER],
            "CapacityProviderArn": [PROVIDER],
            "CodeSigningConfigArn": [self.signing],
            "UUIDString": [self.uuid, self.uuid, "f" * 36],
            "LayerName": ["lib", "lib", f"{REALM}:layer:lib"],
            "LayerNameOrArn": ["lib", "lib", f"{REALM}:layer:lib"],
            "LayerVersionArn": [f"{REALM}:layer:lib:{self.layer_version}"],
            "LayerVersionNumber": [self.layer_version],
            "StatementId": ["s", "s", "t"],
            "NamespacedStatementId": ["s", "t"],
            "TaggableResource": resources,
            "PolicyResourceArn": arns,
            "Resource": resources,
            "RoleArn": [ROLE],
            "Arn": [QUEUE, "arn:aws:kinesis:us-east-1:000000000000:stream/s"],
            "DestinationArn": [QUEUE, arns[3]],
            "Principal": ["s3.amazonaws.com", "*", "000000000000"],
            "ResourcePolicy": ["{}", "[]", '"text"', '{"Version": "2012-10-17", "Statement": [{}]}'],
            "RuntimeVersionArn": [f"arn:aws:lambda:us-east-1::runtime:{'0' * 64}"],
            "Handler": ["app.handler"],
            "InstanceType": ["m7i.large", "c7i.*"],
            "FunctionCode": [CODE],
            "LayerVersionContentInput": [CODE],
            "CapacityProviderConfig": [MANAGED],
            "CapacityProviderVpcConfig": [SUBNETS],
            "FunctionScalingConfig": [
                {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1},
                {"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0},
                {},
            ],
            "Environment": [{"Variables": {"KEY": "value"}}],
            "Blob": [CODE["ZipFile"], b'{"event": 1}', b"7"],
            "BlobStream": [b'{"event": 1}', b""],
            "PositiveInteger": [100],
            "MemorySize": [128, 2048],
            "Timeout": [3],
        }
        return {name: st.sampled_from(values) for name, values in self._fitting(candidates).items()}

    def _fitting(self, candidates: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Of the candidates of each shape, those that its model admits; there must be one."""
        model = self._api.model
        present = {name: values for name, values in candidates.items() if name in model.shape_names}
        fitting = {
            name: [value for value in values if _admits(model.shape_for(name), value)]
            for name, values in present.items()
        }
        assert all(fitting.values()), [name for name, values in fitting.items() if not values]
        return fitting


def _admits(shape: Shape, value: Any) -> bool:
    if isinstance(shape, StructureShape) or "pattern" not in shape.metadata:
        return True
    return java.JavaPattern(shape.metadata["pattern"]).matches(value) and len(value) <= shape.metadata.get("max", 10**6)
