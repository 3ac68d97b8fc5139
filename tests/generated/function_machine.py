"""What a rule machine over functions does without rules: it asks the server, waits for what is under way, and holds what is there against the model."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine
from tests.generated.answers import code_of
from tests.generated.function_model import LATEST, MISSING, PUBLISHED, Function, Refusal, Version, lasting
from tests.harness import OPERATOR, wait_for
from tests.raw_client import RawClient
from tests.wire.strategies import sent

from lambstead.wire.gateway import AwsApi

API = AwsApi.load("lambda")
ROOMY = "roomy"
"""The provider that has instances."""
STRANGER = "00000000-0000-4000-8000-000000000000"
"""A RevisionId that nothing has."""


class Api:
    """The server behind one kept connection."""

    def __init__(self, client: RawClient) -> None:
        self._client = client

    def ask(self, operation: str, **params: Any) -> tuple[Refusal | None, dict[str, Any]]:
        """What the server refuses with, and the members of its answer."""
        given = {name: value for name, value in params.items() if value is not None}
        answer = self._client.send(*sent(API.model.operation_model(operation), given))
        assert answer.status < 500, (operation, given, answer.body)
        document = json.loads(answer.body) if answer.body else {}
        return (Refusal(answer.status, str(code_of(answer))) if answer.status >= 400 else None), document

    def get(self, operation: str, **params: Any) -> dict[str, Any]:
        refused, document = self.ask(operation, **params)
        assert refused is None, (operation, params, document)
        return document

    def all(self, operation: str, member: str, size: int, **params: Any) -> list[Any]:
        """Everything in a list, page by page."""
        return [item for page in self.pages(operation, member, size, **params) for item in page]

    def pages(self, operation: str, member: str, size: int, **params: Any) -> Iterator[list[Any]]:
        marker = None
        while True:
            page = self.get(operation, MaxItems=size, Marker=marker, **params)
            assert len(page[member]) <= size
            yield page[member]
            marker = page.get("NextMarker")
            if marker is None:
                return


class FunctionMachine(RuleBasedStateMachine):
    api: ClassVar[Api]
    runs: ClassVar[int] = 0
    is_roomy: ClassVar[bool] = False
    """Whether managed functions are on the provider that has instances."""
    outcomes: ClassVar[Counter[tuple[str, str]]] = Counter()
    """Steps, by what was asked for and what came of it."""

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.suffix = f"-{type(self).runs}"
        self.functions: dict[str, Function] = {}
        self.providers: dict[str, int] = {}

    # --- the server -----------------------------------------------------------------------------------------------------

    def ask(self, operation: str, **params: Any) -> tuple[Refusal | None, dict[str, Any]]:
        refused, answer = self.api.ask(operation, **params)
        self.count(operation, refused)
        return refused, answer

    def count(self, operation: str, refused: Refusal | None = None) -> None:
        """One more step, and what came of it."""
        type(self).outcomes[operation, refused.code if refused else "done"] += 1

    def settled(self, name: str, qualifier: str = LATEST) -> dict[str, Any]:
        """The configuration of a version once nothing about it is under way."""

        def found() -> dict[str, Any] | None:
            document = self.api.get("GetFunctionConfiguration", FunctionName=name, Qualifier=qualifier)
            moving = (
                document["State"] in ("Pending", "Deactivating") or document.get("LastUpdateStatus") == "InProgress"
            )
            return None if moving else document

        return wait_for(found, f"{name}:{qualifier} is settled")

    def settle(self, function: Function, changed_from: str) -> None:
        """Wait for `$LATEST`; every completion of a change gives it another revision."""
        document = self.settled(function.name)
        assert document["State"] == ("ActiveNonInvocable" if function.provider else "Active")
        assert document["RevisionId"] != changed_from
        function.revision = document["RevisionId"]

    def settle_version(self, function: Function, version: Version) -> None:
        document = self.settled(function.name, version.name)
        version.take(document)
        states = {"Failed"} if function.provider not in (None, ROOMY) else {"Active"}
        if version.name != PUBLISHED or version.state != "Deactivated":  # which a publish leaves as it is
            assert version.state in states, document

    def revision(self, kind: str, right: str) -> str | None:
        return {"none": None, "right": right, "stale": STRANGER}[kind]

    def named(self, name: str) -> str:
        return name + self.suffix

    def version(self, name: str, choice: int) -> str:
        """A version's name: of the function's own, more often than not one that a qualifier may be."""
        function = self.functions.get(self.named(name))
        own = function.names[::-1] if function else ["1"]
        every = [*own, *own, *own, "99", PUBLISHED]
        return every[choice % len(every)]

    def qualifier(self, name: str, choice: int) -> str:
        function = self.functions.get(self.named(name))
        aliases = list(function.aliases) if function else []
        return [*aliases, self.version(name, choice), self.version(name, choice + 1), "nobody"][
            choice % (3 + len(aliases))
        ]

    def weights(self, name: str, version: str, weights: tuple[float, ...], choice: int) -> dict[str, float]:
        """Weights for numbered versions, as the model wants them; once in a while the alias's own version is among them."""
        function = self.functions.get(self.named(name))
        own = [
            each
            for each in (function.names if function else [])
            if each.isdecimal() and (each != version or choice == 0)
        ]
        return dict(zip([*own[choice % 3 :], "98", "99"], weights, strict=False))

    def check(self, function: Function) -> None:
        """Nothing of the function is other than the model has it."""
        latest = self.api.get("GetFunctionConfiguration", FunctionName=function.name)
        assert latest["RevisionId"] == function.revision
        assert latest["Description"] == function.description
        assert latest["Timeout"] == function.content.timeout
        for name, version in function.versions.items():
            document = self.api.get("GetFunctionConfiguration", FunctionName=function.name, Qualifier=name)
            assert lasting(document) == version.document
            assert document["RevisionId"] == version.revision
            assert document["State"] == version.state
        for alias in function.aliases.values():
            document = self.api.get("GetAlias", FunctionName=function.name, Name=alias.name)
            assert document["RevisionId"] == alias.revision
            assert document["FunctionVersion"] == alias.version
            assert document.get("RoutingConfig", {}).get("AdditionalVersionWeights", {}) == alias.weights

    def provider_state(self, name: str) -> str | None:
        refused, answer = self.api.ask("GetCapacityProvider", CapacityProviderName=name)
        return None if refused else str(answer["CapacityProvider"]["State"])

    def wait_gone(self, name: str, qualifier: str | None = None) -> None:
        wait_for(
            lambda: self.api.ask("GetFunctionConfiguration", FunctionName=name, Qualifier=qualifier)[0] == MISSING,
            f"{name}:{qualifier} is gone",
        )

    def teardown(self) -> None:
        """Hold everything against the model once more, and leave nothing to the next run, whatever the model thinks there is."""
        try:
            for function in self.functions.values():
                self.check(function)
        finally:
            names = [each["FunctionName"] for each in self.api.all("ListFunctions", "Functions", 50)]
            for name in names:
                self.api.ask("DeleteFunction", FunctionName=name)
            for name in names:
                self.wait_gone(name)
            found = self.api.all("ListCapacityProviders", "CapacityProviders", 50)
            gone = {each["CapacityProviderArn"].rpartition(":")[2] for each in found} - {ROOMY}
            for name in gone:
                self.api.ask("DeleteCapacityProvider", CapacityProviderName=name)
            wait_for(lambda: all(self.provider_state(name) is None for name in gone), f"{gone} are gone")


def provider(name: str, instance_type: str, vcpus: int) -> dict[str, Any]:
    """A request to create a provider. One of an 8xlarge and 2 vCPUs has no room for anything."""
    return {
        "CapacityProviderName": name,
        "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": OPERATOR},
        "InstanceRequirements": {"Architectures": ["x86_64"], "AllowedInstanceTypes": [instance_type]},
        "CapacityProviderScalingConfig": {"MaxVCpuCount": vcpus},
    }


def on(provider_name: str) -> dict[str, Any]:
    arn = f"arn:aws:lambda:us-east-1:000000000000:capacity-provider:{provider_name}"
    return {
        "LambdaManagedInstancesCapacityProviderConfig": {
            "CapacityProviderArn": arn,
            "PerExecutionEnvironmentMaxConcurrency": 1,
        }
    }
