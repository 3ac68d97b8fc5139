"""At least 10,000 steps over functions, versions, aliases, capacity providers and scaling configs, each held against AWS's rules.

What must hold: `$LATEST` of a managed function never runs; what is published does not change; a RevisionId changes with every change and with
nothing else; lists are complete and in order on pages of any size, also while something comes and goes; what the rules forbid is refused and
changes nothing.

The providers of most runs have no instance type within their limit, so that a publish onto them fails within milliseconds and starts no process.
In a few runs there is one with room for all: there versions become active, are switched off and on again.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from tests.generated.function_machine import ROOMY, STRANGER, Api, FunctionMachine, on, provider
from tests.generated.function_model import (
    CONFLICT,
    DENIED,
    INVALID,
    LATEST,
    MISSING,
    PUBLISHED,
    STALE,
    UNPUBLISHED,
    Alias,
    Content,
    Function,
    refuses_bounds,
    refuses_weights,
)
from tests.harness import ROLE, Server, package, wait_for
from tests.raw_client import RawClient

LEAST_STEPS = 10_000
STEPS = 100
RUNS, ROOMY_RUNS = 112, 8
CODES = [package(f"def handler(event, context):\n    return {number}\n") for number in range(3)]
LEAST_OF_EACH = 3
OFTEN = {
    *(
        (operation, "done")
        for operation in ("CreateFunction", "UpdateFunctionCode", "PublishVersion", "DeleteFunction")
    ),
    *((operation, "done") for operation in ("CreateAlias", "UpdateAlias", "DeleteAlias", "Invoke")),
    *(
        (operation, "done")
        for operation in ("CreateCapacityProvider", "DeleteCapacityProvider", "PutFunctionScalingConfig")
    ),
    *(
        (operation, CONFLICT.code)
        for operation in ("CreateFunction", "DeleteFunction", "DeleteCapacityProvider", "Invoke")
    ),
    *((operation, STALE.code) for operation in ("UpdateFunctionCode", "PublishVersion", "UpdateAlias")),
    *((operation, INVALID.code) for operation in ("CreateAlias", "PutFunctionScalingConfig", "Invoke")),
    ("Invoke", UNPUBLISHED.code),
    ("PutFunctionScalingConfig", DENIED.code),
    ("PutFunctionScalingConfig", CONFLICT.code),
}
"""What must have come of a good number of steps: a machine that only bounces off its rules proves little."""

NAMES = st.sampled_from(["f", "f", "m", "m", "g"])
"""`f` starts out as a standard function, `m` as a managed one."""
CODE = st.integers(0, len(CODES) - 1)
DESCRIPTION = st.sampled_from(["", "one", "two"])
TIMEOUT = st.sampled_from([3, 4])
ALIAS = st.sampled_from(["live", "next"])
CHOICE = st.integers(0, 11)
"""Which of a function's own versions or aliases, or of some that it does not have."""
WEIGHTS = st.sampled_from([(), (), (0.5,), (0.0,), (1.0,), (0.25,), (0.1, 0.1)])
"""As many further versions as there are weights."""
REVISION = st.sampled_from(["none", "none", "right", "stale"])
PAGE = st.sampled_from([1, 2, 3, 50])
TO = st.sampled_from([None, None, "LATEST_PUBLISHED"])


class FunctionRules(FunctionMachine):
    # --- capacity providers ----------------------------------------------------------------------------------------------

    @initialize(in_place=st.booleans())
    def begin(self, in_place: bool) -> None:
        self.create_provider("p")
        for name, managed in (("f", False), ("m", True)):
            self.create_function(name, managed, 0, "", "")
            self.update_code(name, 1, "none", False, True)
            self.create_alias(name, "live", 1, (), 0)
            self.update_alias(name, "live", None, None, 0, "stale")
            self.delete_version(name, 1)  # which the alias refers to
        if in_place:
            self.publish("m", "LATEST_PUBLISHED", None, "none", "")

    @precondition(lambda self: len(self.providers) < 2)
    @rule(name=st.sampled_from(["p", "q"]))
    def create_provider(self, name: str) -> None:
        name = self.named(name)
        refused, answer = self.ask("CreateCapacityProvider", **provider(name, "m7i.8xlarge", 2))
        assert refused == (CONFLICT if name in self.providers else None)
        if refused is None:
            assert answer["CapacityProvider"]["State"] == "Pending"
            self.providers[name] = 2
            wait_for(lambda: self.provider_state(name) == "Active", f"{name} is active")

    @rule(name=st.sampled_from(["p", "q"]), vcpus=st.integers(2, 4), policy=st.booleans())
    def update_provider(self, name: str, vcpus: int, policy: bool) -> None:
        name = self.named(name)
        policies = [{"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 50}]
        scaling = {"MaxVCpuCount": vcpus} | ({"ScalingMode": "Auto", "ScalingPolicies": policies} if policy else {})
        refused, answer = self.ask(
            "UpdateCapacityProvider", CapacityProviderName=name, CapacityProviderScalingConfig=scaling
        )
        if name not in self.providers:
            assert refused == MISSING
        elif policy:
            assert refused == INVALID
        else:
            assert refused is None
            assert answer["CapacityProvider"]["CapacityProviderScalingConfig"]["MaxVCpuCount"] == vcpus
            self.providers[name] = vcpus

    @rule(name=st.sampled_from(["p", "q", "q"]))
    def delete_provider(self, name: str) -> None:
        name = self.named(name)
        refused, answer = self.ask("DeleteCapacityProvider", CapacityProviderName=name)
        if name not in self.providers:
            assert refused == MISSING
        elif any(function.provider == name for function in self.functions.values()):
            assert refused == CONFLICT
            assert self.provider_state(name) == "Active"
        else:
            assert refused is None
            assert answer["CapacityProvider"]["State"] == "Deleting"
            del self.providers[name]
            wait_for(lambda: self.provider_state(name) is None, f"{name} is gone")

    @rule(size=PAGE)
    def list_providers(self, size: int) -> None:
        found = self.api.all("ListCapacityProviders", "CapacityProviders", size)
        self.count("ListCapacityProviders")
        limits = {
            each["CapacityProviderArn"].rpartition(":")[2]: each["CapacityProviderScalingConfig"]["MaxVCpuCount"]
            for each in found
        }
        assert len(found) == len(limits)
        assert limits == self.providers | {ROOMY: 96}
        assert list(limits) == sorted(limits)

    # --- functions ---------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, managed=st.booleans(), code=CODE, description=DESCRIPTION, to=st.sampled_from([None, "", "to"]))
    def create_function(self, name: str, managed: bool, code: int, description: str, to: str | None) -> None:
        """`to`: not published, published to a number, or to `$LATEST.PUBLISHED`."""
        name, place = self.named(name), "LATEST_PUBLISHED" if to else None
        provider_name = (ROOMY if self.is_roomy else self.named("p")) if managed else None
        refused, answer = self.ask(
            "CreateFunction",
            FunctionName=name,
            Runtime="python3.13",
            Handler="app.handler",
            Role=ROLE,
            Code={"ZipFile": CODES[code]},
            Description=description,
            CapacityProviderConfig=on(provider_name) if provider_name else None,
            Publish=None if to is None else True,
            PublishTo=place,
        )
        if place and not managed:
            assert refused == INVALID
        elif name in self.functions:
            assert refused == CONFLICT
        elif provider_name not in (None, ROOMY, *self.providers):
            assert refused == MISSING
        else:
            assert refused is None, answer
            function = Function(name, provider_name, Content(code, 3), description)
            self.functions[name] = function
            assert answer["State"] == "Pending"
            if to is None:
                self.settle(function, answer["RevisionId"])
            else:
                version = function.published(place)
                assert answer["Version"] == version.name
                self.settle(function, "")
                self.settle_version(function, version)

    @rule(name=NAMES, code=CODE, revision=REVISION, dry=st.booleans(), publish=st.booleans())
    def update_code(self, name: str, code: int, revision: str, dry: bool, publish: bool) -> None:
        function = self.functions.get(self.named(name))
        refused, answer = self.ask(
            "UpdateFunctionCode",
            FunctionName=self.named(name),
            ZipFile=CODES[code],
            DryRun=dry,
            Publish=publish,
            RevisionId=self.revision(revision, function.revision if function else STRANGER),
        )
        if function is None:
            assert refused == MISSING
        elif revision == "stale":
            assert refused == STALE
        elif dry:
            assert refused is None
            assert answer["RevisionId"] == function.revision
        else:
            assert refused is None
            function.content = function.content._replace(code=code)
            self.took_update(function, answer, publish)

    def took_update(self, function: Function, answer: Mapping[str, Any], publish: bool) -> None:
        if publish and (previous := function.previous(None)):
            assert answer["Version"] == previous.name
            assert answer["RevisionId"] == previous.revision
            self.settle(function, function.revision)
        elif publish:
            version = function.published(None)
            assert answer["Version"] == version.name
            self.settle(function, function.revision)
            self.settle_version(function, version)
        else:
            assert answer["LastUpdateStatus"] == "InProgress"
            assert answer["RevisionId"] != function.revision
            self.settle(function, answer["RevisionId"])

    @rule(name=NAMES, description=DESCRIPTION, timeout=TIMEOUT, revision=REVISION)
    def update_configuration(self, name: str, description: str, timeout: int, revision: str) -> None:
        function = self.functions.get(self.named(name))
        refused, answer = self.ask(
            "UpdateFunctionConfiguration",
            FunctionName=self.named(name),
            Description=description,
            Timeout=timeout,
            RevisionId=self.revision(revision, function.revision if function else STRANGER),
        )
        if function is None:
            assert refused == MISSING
        elif revision == "stale":
            assert refused == STALE
        else:
            assert refused is None
            function.content = function.content._replace(timeout=timeout)
            function.description = description
            self.took_update(function, answer, publish=False)

    @rule(name=NAMES)
    def tag(self, name: str) -> None:
        """A change of tags is a change of the function, and of no version."""
        function = self.functions.get(self.named(name))
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{self.named(name)}"
        refused, _ = self.ask("TagResource", Resource=arn, Tags={"key": "value"})
        assert refused == (None if function else MISSING)
        if function:
            before, function.revision = function.revision, self.settled(function.name)["RevisionId"]
            assert function.revision != before

    @precondition(lambda self: self.functions)
    @rule(name=st.sampled_from(["f", "m", "g", "g", "g"]), really=st.sampled_from([False, False, True]))
    def delete_function(self, name: str, really: bool) -> None:
        name = self.named(name)
        if name in self.functions and not really:
            return
        refused, _ = self.ask("DeleteFunction", FunctionName=name)
        assert refused == (None if name in self.functions else MISSING)
        if name in self.functions:
            del self.functions[name]
            self.wait_gone(name)

    @rule(size=PAGE, every=st.booleans())
    def list_functions(self, size: int, every: bool) -> None:
        self.count("ListFunctions")
        found = self.api.all("ListFunctions", "Functions", size, FunctionVersion="ALL" if every else None)
        expected = [
            (function.name, version)
            for _, function in sorted(self.functions.items())
            for version in (function.names if every else [LATEST])
        ]
        assert [(each["FunctionName"], each["Version"]) for each in found] == expected
        assert all("State" not in each for each in found)

    # --- versions ------------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, to=TO, sha=st.sampled_from([None, None, "right", "wrong"]), revision=REVISION, text=DESCRIPTION)
    def publish(self, name: str, to: str | None, sha: str | None, revision: str, text: str) -> None:
        function = self.functions.get(self.named(name))
        current = self.api.get("GetFunctionConfiguration", FunctionName=function.name) if function else {}
        refused, answer = self.ask(
            "PublishVersion",
            FunctionName=self.named(name),
            PublishTo=to,
            CodeSha256={None: None, "right": current.get("CodeSha256"), "wrong": "x"}[sha],
            RevisionId=self.revision(revision, function.revision if function else STRANGER),
            Description=text or None,
        )
        if function is None:
            assert refused == MISSING
            return
        expected = function.refuses_publish(to, sha != "wrong", revision != "stale")
        assert refused == expected
        if refused is not None:
            return
        if previous := function.previous(to):
            assert answer["Version"] == previous.name
            assert answer["RevisionId"] == previous.revision
        else:
            version = function.published(to)
            assert answer["Version"] == version.name
            assert answer["Description"] == (text or function.description)
            self.settle_version(function, version)
            self.settle(function, function.revision)

    @rule(name=st.sampled_from(["f", "m", "m"]), to=TO)
    def publish_once_more(self, name: str, to: str | None) -> None:
        """Nothing comes of it where nothing changed and nothing had failed."""
        self.publish(name, to, None, "none", "")

    @rule(name=NAMES, choice=CHOICE)
    def delete_version(self, name: str, choice: int) -> None:
        qualifier = self.qualifier(name, choice)
        function = self.functions.get(self.named(name))
        refused, _ = self.ask("DeleteFunction", FunctionName=self.named(name), Qualifier=qualifier)
        if function is None:
            assert refused == (INVALID if qualifier == LATEST else MISSING)
            return
        assert refused == function.refuses_deletion(qualifier)
        if refused is None and qualifier in function.versions:
            del function.versions[qualifier]
            self.wait_gone(function.name, qualifier)

    @rule(name=NAMES, size=PAGE)
    def list_versions(self, name: str, size: int) -> None:
        self.count("ListVersionsByFunction")
        function = self.functions.get(self.named(name))
        if function is not None:
            found = self.api.all("ListVersionsByFunction", "Versions", size, FunctionName=function.name)
            assert [each["Version"] for each in found] == function.names
            revisions = {LATEST: function.revision} | {v.name: v.revision for v in function.versions.values()}
            assert {each["Version"]: each["RevisionId"] for each in found} == revisions

    @rule(size=PAGE)
    def list_versions_of_a_provider(self, size: int) -> None:
        self.count("ListFunctionVersionsByCapacityProvider")
        operation = "ListFunctionVersionsByCapacityProvider"
        for provider_name in (ROOMY, *self.providers):
            found = self.api.all(operation, "FunctionVersions", size, CapacityProviderName=provider_name)
            expected = [
                f"{function.name}:{version}"
                for _, function in sorted(self.functions.items())
                if function.provider == provider_name
                for version in function.names
            ]
            assert [each["FunctionArn"].partition(":function:")[2] for each in found] == expected

    # --- aliases ---------------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, alias=ALIAS, choice=CHOICE, shares=WEIGHTS, second=CHOICE)
    def create_alias(self, name: str, alias: str, choice: int, shares: tuple[float, ...], second: int) -> None:
        version = self.version(name, choice)
        weights = self.weights(name, version, shares, second)
        function = self.functions.get(self.named(name))
        refused, answer = self.ask(
            "CreateAlias",
            FunctionName=self.named(name),
            Name=alias,
            FunctionVersion=version,
            RoutingConfig={"AdditionalVersionWeights": weights},
        )
        if function is None:
            assert refused == (refuses_weights(version, weights) or MISSING)
            return
        exists = CONFLICT if alias in function.aliases else None
        assert refused == (function.refuses_alias(version, weights) or exists)
        if refused is None:
            function.aliases[alias] = Alias(alias, version, weights, answer["RevisionId"])
            assert ("RoutingConfig" in answer) == bool(weights)

    @rule(
        name=NAMES, alias=ALIAS, choice=st.none() | CHOICE, shares=st.none() | WEIGHTS, second=CHOICE, revision=REVISION
    )
    def update_alias(
        self,
        name: str,
        alias: str,
        choice: int | None,
        shares: tuple[float, ...] | None,
        second: int,
        revision: str,
    ) -> None:
        version = None if choice is None else self.version(name, choice)
        weights = None if shares is None else self.weights(name, version or "", shares, second)
        function = self.functions.get(self.named(name))
        before = function.aliases.get(alias) if function else None
        refused, answer = self.ask(
            "UpdateAlias",
            FunctionName=self.named(name),
            Name=alias,
            FunctionVersion=version,
            RoutingConfig=None if weights is None else {"AdditionalVersionWeights": weights},
            RevisionId=self.revision(revision, before.revision if before else STRANGER),
        )
        if function is None or before is None:
            assert refused == MISSING
            return
        version = version or before.version
        weights = before.weights if weights is None else weights
        assert refused == (STALE if revision == "stale" else function.refuses_alias(version, weights))
        if refused is None:
            assert answer["RevisionId"] != before.revision
            function.aliases[alias] = Alias(alias, version, weights, answer["RevisionId"])

    @rule(name=NAMES, alias=st.sampled_from(["live", "next", "next", "absent"]))
    def delete_alias(self, name: str, alias: str) -> None:
        """An alias that is not there is deleted as well."""
        refused, _ = self.ask("DeleteAlias", FunctionName=self.named(name), Name=alias)
        assert refused is None
        if function := self.functions.get(self.named(name)):
            function.aliases.pop(alias, None)

    @rule(name=NAMES, choice=st.none() | CHOICE)
    def list_aliases_while_some_come_and_go(self, name: str, choice: int | None) -> None:
        filtered = None if choice is None else self.version(name, choice)
        self.count("ListAliases")
        function = self.functions.get(self.named(name))
        if function is None:
            return
        found, number = list[str](), 0
        passing = {"FunctionName": function.name, "FunctionVersion": LATEST}
        for page in self.api.pages("ListAliases", "Aliases", 1, FunctionName=function.name, FunctionVersion=filtered):
            found += [alias["Name"] for alias in page if not alias["Name"].startswith("passing")]
            number += 1
            assert number < 20
            self.api.get("CreateAlias", Name=f"passing-{number}", **passing)
            self.api.get("DeleteAlias", FunctionName=function.name, Name=f"passing-{number - 1}")
        self.api.get("DeleteAlias", FunctionName=function.name, Name=f"passing-{number}")
        stay = [alias for _, alias in sorted(function.aliases.items()) if filtered in (None, *alias.versions)]
        assert found == [alias.name for alias in stay]

    # --- scaling and invoking ------------------------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(["m", "m", "f", "g"]),
        choice=CHOICE,
        bounds=st.sampled_from([(1, 1), (1, 3), (0, 0), (0, 0), (None, None), (None, 0), (0, 3), (3, 1), (None, 2)]),
    )
    def put_scaling_config(self, name: str, choice: int, bounds: tuple[int | None, int | None]) -> None:
        chosen = self.version(name, choice)
        self.scaled(name, PUBLISHED if chosen == LATEST else chosen, bounds)

    @precondition(lambda self: self.is_roomy)
    @rule(bounds=st.sampled_from([(0, 0), (1, 1), (None, None)]))
    def switch_off_and_on(self, bounds: tuple[int | None, int | None]) -> None:
        function = self.functions.get(self.named("m"))
        running = [each.name for each in function.versions.values() if not each.has_failed] if function else []
        self.scaled("m", running[0] if running else "1", bounds)

    def scaled(self, name: str, qualifier: str, bounds: tuple[int | None, int | None]) -> None:
        function = self.functions.get(self.named(name))
        version = function.versions.get(qualifier) if function else None
        members = dict(zip(("MinExecutionEnvironments", "MaxExecutionEnvironments"), bounds, strict=True))
        config = {member: value for member, value in members.items() if value is not None}
        refused, answer = self.ask(
            "PutFunctionScalingConfig",
            FunctionName=self.named(name),
            Qualifier=qualifier,
            FunctionScalingConfig=config,
        )
        if refuses_bounds(*bounds):
            assert refused == INVALID
        elif function is None or version is None:
            assert refused == MISSING
        elif function.provider is None:
            assert refused == DENIED
        elif version.state == "Failed":
            assert refused == CONFLICT
        else:
            assert refused is None, answer
            off = bounds[1] == 0
            document = self.settled(function.name, qualifier)
            if off:
                assert document["State"] == "Deactivated"
            else:
                assert document["State"] == "Active"
            version.take(document)

    @rule(name=NAMES, choice=st.none() | CHOICE)
    def invoke(self, name: str, choice: int | None) -> None:
        """A dry run goes as far as choosing what would run; where nothing may run, the real thing is asked for."""
        self.invoked(name, None if choice is None else self.qualifier(name, choice))

    @rule(name=st.sampled_from(["m", "m", "f", "g"]), qualifier=st.sampled_from([None, LATEST, LATEST, PUBLISHED]))
    def invoke_latest(self, name: str, qualifier: str | None) -> None:
        self.invoked(name, qualifier)

    def invoked(self, name: str, qualifier: str | None) -> None:
        function = self.functions.get(self.named(name))
        right = function.invocation(qualifier) if function else {MISSING}
        kind = "DryRun" if None in right else "RequestResponse"
        refused, _ = self.ask("Invoke", FunctionName=self.named(name), Qualifier=qualifier, InvocationType=kind)
        assert refused in right

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        self.count("GetFunctionConfiguration")
        if function := self.functions.get(self.named(name)):
            self.check(function)


def budget(runs: int) -> settings:
    return settings(
        max_examples=runs,
        stateful_step_count=STEPS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(600)
def test_functions_follow_their_rules_through_ten_thousand_steps(server: Server) -> None:
    with RawClient(server.url) as client:
        FunctionRules.api = Api(client)
        FunctionRules.api.get("CreateCapacityProvider", **provider(ROOMY, "m7i.*", 96))
        run_state_machine_as_test(FunctionRules, settings=budget(RUNS))
        FunctionRules.is_roomy = True
        run_state_machine_as_test(FunctionRules, settings=budget(ROOMY_RUNS))
    assert FunctionRules.outcomes.total() >= LEAST_STEPS
    assert {each for each in OFTEN if FunctionRules.outcomes[each] < LEAST_OF_EACH} == set()
