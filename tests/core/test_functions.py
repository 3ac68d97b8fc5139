"""Versions and their states: every transition as a table, then a managed function lived through at random.

Texts and sequences are those of AWS's function states, and of the references on managed instances (§4.1) and the Lambda API (§4).
"""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.samples import AT, created, latest, managed, published, serving, standard

from lambstead.core.arn import LATEST, LATEST_PUBLISHED
from lambstead.core.configurations import Configuration, Publication
from lambstead.core.errors import DomainError, IllegalTransition, PreconditionFailed, ResourceConflict
from lambstead.core.functions import (
    CREATING,
    UPDATING,
    BoundsRequested,
    CapacityFailed,
    CapacityReady,
    DeletionRequested,
    Drained,
    FunctionVersion,
    Reason,
    Republished,
    Settled,
    State,
    Updated,
    UpdateStatus,
    VersionEvent,
    apply,
    numbered,
    ordinal_of,
    refuse_stale_revision,
    refuse_while_settling,
)
from lambstead.core.publishing import Publish, is_published_already, publish
from lambstead.core.scaling import ScalingBounds

LATER = "2026-11-21T11:00:00.000+0000"
NEWER = managed(timeout_s=9)
NO_ROOM = Reason("CapacityProviderScalingLimitExceeded", "no room")
ONE, FIVE, OFF = ScalingBounds(1), ScalingBounds(5), ScalingBounds(0, 0)
DEFAULT = ScalingBounds(3)

ACTIVE = serving(managed())
NUMBERED = serving(managed(), "7")
UPDATING_IN_PLACE = apply(ACTIVE, Republished(NEWER, LATER, "republished"))
UPDATE_FAILED = apply(UPDATING_IN_PLACE, CapacityFailed(2, NO_ROOM, "failed"))
FAILED = apply(published(managed()), CapacityFailed(1, NO_ROOM, "failed"))
DEACTIVATING = apply(ACTIVE, BoundsRequested(OFF))
DEACTIVATED = apply(DEACTIVATING, Drained())
DELETING = apply(ACTIVE, DeletionRequested())


def told(version: FunctionVersion) -> tuple[object, ...]:
    """What the API shows of a version's state."""
    return version.state, version.state_reason, version.update_status, version.update_reason


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        pytest.param(
            created(standard()),
            Settled("r"),
            (State.ACTIVE, None, UpdateStatus.SUCCESSFUL, None),
            id="standard-create-settles",
        ),
        pytest.param(
            created(managed()),
            Settled("r"),
            (State.ACTIVE_NON_INVOCABLE, None, UpdateStatus.SUCCESSFUL, None),
            id="managed-latest-settles-non-invocable",
        ),
        pytest.param(
            latest(standard()),
            Updated(standard(timeout_s=9), LATER, "r"),
            (State.ACTIVE, None, UpdateStatus.IN_PROGRESS, CREATING),
            id="standard-update",
        ),
        pytest.param(
            latest(managed()),
            Updated(NEWER, LATER, "r"),
            (State.ACTIVE_NON_INVOCABLE, None, UpdateStatus.IN_PROGRESS, CREATING),
            id="managed-update",
        ),
        pytest.param(
            published(managed(), "7"),
            CapacityReady(1, DEFAULT, "r"),
            (State.ACTIVE, None, UpdateStatus.SUCCESSFUL, None),
            id="number-becomes-active",
        ),
        pytest.param(
            published(managed()),
            CapacityReady(1, DEFAULT, "r"),
            (State.ACTIVE, None, UpdateStatus.SUCCESSFUL, None),
            id="first-publish-becomes-active",
        ),
        pytest.param(
            published(managed()),
            CapacityFailed(1, NO_ROOM, "r"),
            (State.FAILED, NO_ROOM, UpdateStatus.FAILED, NO_ROOM),
            id="first-publish-fails",
        ),
        pytest.param(
            published(managed(), "7"),
            CapacityFailed(1, NO_ROOM, "r"),
            (State.FAILED, NO_ROOM, UpdateStatus.FAILED, NO_ROOM),
            id="number-fails",
        ),
        pytest.param(
            ACTIVE,
            Republished(NEWER, LATER, "r"),
            (State.ACTIVE, None, UpdateStatus.IN_PROGRESS, UPDATING),
            id="republish-stays-active",
        ),
        pytest.param(
            FAILED,
            Republished(NEWER, LATER, "r"),
            (State.PENDING, CREATING, UpdateStatus.IN_PROGRESS, CREATING),
            id="republish-after-failure",
        ),
        pytest.param(
            DEACTIVATED,
            Republished(NEWER, LATER, "r"),
            (State.DEACTIVATED, None, UpdateStatus.SUCCESSFUL, None),
            id="republish-while-off",
        ),
        pytest.param(
            UPDATING_IN_PLACE,
            CapacityReady(2, DEFAULT, "r"),
            (State.ACTIVE, None, UpdateStatus.SUCCESSFUL, None),
            id="republish-succeeds",
        ),
        pytest.param(
            UPDATING_IN_PLACE,
            CapacityFailed(2, NO_ROOM, "r"),
            (State.ACTIVE, None, UpdateStatus.FAILED, NO_ROOM),
            id="republish-fails",
        ),
        pytest.param(
            UPDATE_FAILED,
            Republished(NEWER, LATER, "r"),
            (State.ACTIVE, None, UpdateStatus.IN_PROGRESS, UPDATING),
            id="republish-after-failed-republish",
        ),
        pytest.param(
            ACTIVE,
            BoundsRequested(OFF),
            (State.DEACTIVATING, None, UpdateStatus.SUCCESSFUL, None),
            id="bounds-off",
        ),
        pytest.param(DEACTIVATING, Drained(), (State.DEACTIVATED, None, UpdateStatus.SUCCESSFUL, None), id="drained"),
        pytest.param(
            DEACTIVATED,
            BoundsRequested(ONE),
            (State.PENDING, CREATING, UpdateStatus.SUCCESSFUL, None),
            id="bounds-on-again",
        ),
        pytest.param(
            DEACTIVATED,
            BoundsRequested(OFF),
            (State.DEACTIVATED, None, UpdateStatus.SUCCESSFUL, None),
            id="bounds-off-twice",
        ),
        pytest.param(
            ACTIVE, BoundsRequested(FIVE), (State.ACTIVE, None, UpdateStatus.SUCCESSFUL, None), id="bounds-changed"
        ),
        *(
            pytest.param(
                before,
                DeletionRequested(),
                (State.DELETING, None, UpdateStatus.IN_PROGRESS, before.update_reason),
                id=f"delete-{before.version}-{before.state}",
            )
            for before in (latest(managed()), ACTIVE, NUMBERED, FAILED, DEACTIVATED, published(managed()))
        ),
    ],
)
def test_what_the_api_shows_after_each_event(
    before: FunctionVersion, event: VersionEvent, after: tuple[object, ...]
) -> None:
    assert told(apply(before, event)) == after


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (UPDATING_IN_PLACE, CapacityReady(1, DEFAULT, "r")),
        (UPDATING_IN_PLACE, CapacityFailed(1, NO_ROOM, "r")),
        (UPDATE_FAILED, CapacityReady(2, DEFAULT, "r")),
        (UPDATE_FAILED, CapacityFailed(2, NO_ROOM, "r")),
        (FAILED, CapacityReady(1, DEFAULT, "r")),
        (FAILED, CapacityFailed(1, Reason("x", "y"), "r")),
        (ACTIVE, CapacityFailed(1, NO_ROOM, "r")),
        *(
            (before, event)
            for before in (DEACTIVATING, DEACTIVATED, DELETING)
            for event in (CapacityReady(1, DEFAULT, "r"), CapacityFailed(1, NO_ROOM, "r"))
        ),
        (apply(latest(standard()), DeletionRequested()), Settled("r")),
        (apply(ACTIVE, BoundsRequested(FIVE)), CapacityReady(1, DEFAULT, "r")),
        (apply(apply(ACTIVE, BoundsRequested(FIVE)), BoundsRequested(None)), CapacityReady(1, FIVE, "r", FIVE)),
    ],
)
def test_events_that_come_too_late_change_nothing(before: FunctionVersion, event: VersionEvent) -> None:
    assert apply(before, event) == before


@pytest.mark.parametrize(
    ("before", "event", "error"),
    [
        (ACTIVE, Updated(NEWER, LATER, "r"), IllegalTransition),
        (NUMBERED, Updated(NEWER, LATER, "r"), IllegalTransition),
        (NUMBERED, Republished(NEWER, LATER, "r"), IllegalTransition),
        (latest(managed()), Republished(NEWER, LATER, "r"), IllegalTransition),
        (published(managed()), Settled("r"), IllegalTransition),
        (published(managed(), "7"), Settled("r"), IllegalTransition),
        *((before, Drained(), IllegalTransition) for before in (ACTIVE, DEACTIVATED, DELETING, FAILED)),
        *(
            (before, BoundsRequested(FIVE), ResourceConflict)
            for before in (published(managed()), FAILED, DELETING, DEACTIVATING)
        ),
        (DELETING, Republished(NEWER, LATER, "r"), ResourceConflict),
        (apply(latest(managed()), DeletionRequested()), Updated(NEWER, LATER, "r"), ResourceConflict),
    ],
)
def test_forbidden_events_are_refused(
    before: FunctionVersion, event: VersionEvent, error: type[DomainError | IllegalTransition]
) -> None:
    with pytest.raises(error) as refusal:
        apply(before, event)
    if error is ResourceConflict:
        assert str(refusal.value) == (
            "The operation cannot be performed at this time. "
            f"The function is currently in the following state: {before.state}"
        )


def test_reasons_are_worded_as_on_aws() -> None:
    assert Reason("Creating", "The function is being created.") == CREATING
    assert Reason("Updating", "The function is being updated.") == UPDATING


# --- what takes invocations -----------------------------------------------------------------------------------------------


def test_a_standard_function_serves_the_old_code_until_its_update_is_settled() -> None:
    before = latest(standard())
    updating = apply(before, Updated(standard(timeout_s=9), LATER, "r"))
    assert updating.serving == before.serving == Publication(1, standard())
    assert apply(updating, Settled("r")).serving == Publication(2, standard(timeout_s=9))


def test_a_republish_serves_the_old_publication_until_the_new_one_is_ready() -> None:
    assert UPDATING_IN_PLACE.configuration == NEWER
    assert UPDATING_IN_PLACE.serving == UPDATE_FAILED.serving == ACTIVE.serving
    assert apply(UPDATING_IN_PLACE, CapacityReady(2, DEFAULT, "r")).serving == Publication(2, NEWER)


@pytest.mark.parametrize("version", [latest(managed()), FAILED, DEACTIVATING, DEACTIVATED, DELETING])
def test_what_is_not_active_serves_nothing(version: FunctionVersion) -> None:
    assert version.serving is None


# --- scaling bounds ---------------------------------------------------------------------------------------------------------


def test_bounds_are_requested_until_their_environments_are_ready() -> None:
    asked = apply(ACTIVE, BoundsRequested(FIVE))
    assert (asked.bounds, asked.bounds_requested, asked.applied_bounds) == (FIVE, True, None)
    applied = apply(asked, CapacityReady(1, FIVE, "r", FIVE))
    assert (applied.bounds_requested, applied.applied_bounds) == (False, FIVE)
    assert applied.revision_id == ACTIVE.revision_id


def test_bounds_settle_after_a_failed_republish_by_what_still_serves() -> None:
    asked = apply(UPDATE_FAILED, BoundsRequested(FIVE))
    assert asked.awaited == 1
    applied = apply(asked, CapacityReady(1, FIVE, "r", FIVE))
    assert (applied.bounds_requested, applied.applied_bounds) == (False, FIVE)
    assert told(applied) == told(UPDATE_FAILED)
    assert applied.serving == ACTIVE.serving


def test_a_version_comes_back_with_its_latest_publication_even_if_the_update_to_it_had_failed() -> None:
    off = apply(apply(UPDATE_FAILED, BoundsRequested(OFF)), Drained())
    back = apply(off, BoundsRequested(ONE))
    assert (back.state, back.update_status, back.awaited) == (State.PENDING, None, 2)
    active = apply(back, CapacityReady(2, ONE, "r", ONE))
    assert (active.state, active.serving) == (State.ACTIVE, Publication(2, NEWER))


def test_deactivated_bounds_are_applied_bounds() -> None:
    assert (DEACTIVATED.applied_bounds, DEACTIVATED.bounds_requested) == (OFF, False)


# --- publishing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "state", "update_status"),
    [
        (publish(latest(standard()), None, Publish("1", AT, "r")), State.ACTIVE, UpdateStatus.SUCCESSFUL),
        (publish(created(standard()), None, Publish("1", AT, "r")), State.PENDING, None),
        (publish(latest(managed()), None, Publish("1", AT, "r")), State.PENDING, None),
        (publish(latest(managed()), None, Publish(LATEST_PUBLISHED, AT, "r")), State.PENDING, UpdateStatus.IN_PROGRESS),
        (publish(latest(NEWER), ACTIVE, Publish(LATEST_PUBLISHED, AT, "r")), State.ACTIVE, UpdateStatus.IN_PROGRESS),
    ],
)
def test_the_state_of_a_new_version(version: FunctionVersion, state: State, update_status: UpdateStatus | None) -> None:
    assert (version.state, version.update_status) == (state, update_status)
    assert version.state_reason == (CREATING if state is State.PENDING else None)


def test_a_version_takes_the_description_of_latest_unless_it_is_given_one() -> None:
    described = latest(managed(description="of latest"))
    assert publish(described, None, Publish("1", AT, "r")).configuration.description == "of latest"
    assert publish(described, None, Publish("1", AT, "r", "its own")).configuration.description == "its own"
    assert publish(described, None, Publish("1", AT, "r", "")).configuration.description == ""


@pytest.mark.parametrize(
    ("source", "previous", "already"),
    [
        (latest(managed()), None, False),
        (latest(managed()), ACTIVE, True),
        (latest(managed()), published(managed()), True),
        (latest(managed()), DEACTIVATED, True),
        (latest(managed(description="another")), ACTIVE, False),
        (latest(NEWER), ACTIVE, False),
        (latest(managed()), FAILED, False),
        (latest(NEWER), UPDATING_IN_PLACE, True),
        (latest(NEWER), UPDATE_FAILED, False),
        (latest(managed()), DELETING, False),
    ],
)
def test_publishing_without_a_change_publishes_nothing_unless_the_previous_one_failed(
    source: FunctionVersion, previous: FunctionVersion | None, already: bool
) -> None:
    assert is_published_already(source, previous) is already


def test_a_new_description_of_latest_is_worth_a_version_and_the_description_of_a_publish_is_not() -> None:
    source = latest(managed(description="of latest"))
    first = publish(source, None, Publish("1", AT, "r", "its own"))
    assert is_published_already(source, first)
    described = latest(managed(description="its own"))
    assert not is_published_already(described, first)
    assert is_published_already(described, publish(described, ACTIVE, Publish(LATEST_PUBLISHED, AT, "s", "x")))


def test_publications_of_a_function_made_anew_are_not_those_of_the_one_deleted() -> None:
    again = latest(managed(), target=1_000)
    assert publish(again, None, Publish("1", AT, "r")).publication.number == 1_000


@pytest.mark.parametrize(
    ("name", "is_number"),
    [
        ("1", True),
        ("120", True),
        ("0", False),
        ("01", False),
        ("²", False),
        ("٣", False),
        ("9" * 19, False),
        (LATEST, False),
        (LATEST_PUBLISHED, False),
        ("live", False),
        ("", False),
        ("1\n", False),
    ],
)
def test_only_plain_positive_numbers_name_numbered_versions(name: str, is_number: bool) -> None:
    assert numbered(name) is is_number


def test_lists_have_latest_first_then_what_is_published_by_number() -> None:
    assert sorted(["10", "2", LATEST, "1", LATEST_PUBLISHED], key=ordinal_of) == [
        LATEST,
        LATEST_PUBLISHED,
        "1",
        "2",
        "10",
    ]


# --- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [latest(standard()), latest(managed()), ACTIVE, FAILED, DEACTIVATED, UPDATE_FAILED])
def test_a_settled_version_may_be_changed(version: FunctionVersion) -> None:
    refuse_while_settling(version, "arn")


@pytest.mark.parametrize("version", [UPDATING_IN_PLACE, apply(latest(standard()), Updated(standard(), LATER, "r"))])
def test_an_update_in_progress_refuses_another(version: FunctionVersion) -> None:
    with pytest.raises(ResourceConflict) as refusal:
        refuse_while_settling(version, "ARN")
    assert str(refusal.value) == (
        "The operation cannot be performed at this time. An update is in progress for resource: ARN"
    )


@pytest.mark.parametrize("version", [created(standard()), published(managed(), "7"), DELETING])
def test_pending_and_deleting_versions_refuse_changes(version: FunctionVersion) -> None:
    with pytest.raises(ResourceConflict, match=f"currently in the following state: {version.state}$"):
        refuse_while_settling(version, "ARN")


def test_only_the_latest_revision_may_be_changed() -> None:
    refuse_stale_revision("a", None)
    refuse_stale_revision("a", "a")
    with pytest.raises(PreconditionFailed) as refusal:
        refuse_stale_revision("a", "b")
    assert str(refusal.value) == (
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
    )
    with pytest.raises(PreconditionFailed, match="Call the GetPolicy API"):
        refuse_stale_revision("a", "b", "GetPolicy")


# --- a configuration's sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configuration", "slots", "vcpus"),
    [
        (managed(), 16, 1.0),
        (managed(slots=64, ratio=4.0, memory_mb=8192), 64, 2.0),
        (standard(memory_mb=1769), 1, 1.0),
        (standard(), 1, 128 / 1769),
        (standard(memory_mb=64), 1, 0.05),
    ],
)
def test_slots_and_vcpus_of_an_environment(configuration: Configuration, slots: int, vcpus: float) -> None:
    assert (configuration.slots_per_environment, configuration.vcpus_per_environment) == (slots, vcpus)


# --- one managed function, lived through at random ----------------------------------------------------------------------------

CONFIGURATIONS = st.integers(1, 3).map(lambda seconds: managed(timeout_s=seconds))
BOUNDS = st.sampled_from([None, ONE, FIVE, DEFAULT, OFF])
CHANGES_REVISION = (Updated, Settled, Republished)


class ManagedFunction(RuleBasedStateMachine):
    """`$LATEST` and everything published from it. Only moves that the operations allow are made, and forbidden ones are seen refused."""

    @initialize(configuration=CONFIGURATIONS)
    def create(self, configuration: Configuration) -> None:
        self.revisions = 0
        self.versions: dict[str, FunctionVersion] = {LATEST: created(configuration)}
        self.frozen: dict[str, Configuration] = {}
        self.last_number = 0
        self.highest: dict[str, int] = {}
        self.gone = False

    # what users do

    @rule(configuration=CONFIGURATIONS)
    def update(self, configuration: Configuration) -> None:
        if self._refused_while_settling(LATEST):
            return
        self._apply(LATEST, Updated(configuration, LATER, self._revision()))

    @rule(in_place=st.booleans())
    def publish(self, in_place: bool) -> None:
        source = self.versions[LATEST]
        before = self.versions.get(LATEST_PUBLISHED) if in_place else None
        if self._refused_while_settling(LATEST) or (before and self._refused_while_settling(LATEST_PUBLISHED)):
            return
        if before is not None and before.state is State.DEACTIVATING:
            return
        numbers = [v for name, v in self.versions.items() if numbered(name)]
        previous = before if in_place else max(numbers, key=lambda v: int(v.version), default=None)
        if is_published_already(source, previous):
            assert previous is not None
            assert previous.configuration.same_as(source.configuration)
            return
        if not in_place:
            self.last_number += 1
        name = LATEST_PUBLISHED if in_place else str(self.last_number)
        version = publish(source, before, Publish(name, LATER, self._revision()))
        assert before is None or version.revision_id != before.revision_id
        assert version.serving == (before.serving if before else None)
        self._save(version)
        self.frozen[name] = version.configuration
        self._save(replace(source, revision_id=self._revision()))

    @rule(data=st.data(), bounds=BOUNDS)
    def put_scaling(self, data: st.DataObject, bounds: ScalingBounds | None) -> None:
        name = self._pick(data)
        if name is None or self._refused_while_settling(name):
            return
        version = self.versions[name]
        if version.state in (State.FAILED, State.DEACTIVATING):
            with pytest.raises(ResourceConflict):
                apply(version, BoundsRequested(bounds))
            return
        after = self._apply(name, BoundsRequested(bounds))
        assert after.bounds == bounds
        assert after.bounds_requested

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = self._pick(data)
        if name is not None and data.draw(st.integers(0, 3)) == 0:
            assert self._apply(name, DeletionRequested()).state is State.DELETING

    # what provisioning does, in time or not

    @rule()
    def settle(self) -> None:
        before = self.versions[LATEST]
        if before.is_settling:
            after = self._apply(LATEST, Settled(self._revision()))
            assert told(after) == (State.ACTIVE_NON_INVOCABLE, None, UpdateStatus.SUCCESSFUL, None)

    @rule(data=st.data(), failed=st.booleans(), lag=st.sampled_from([0, 0, 0, 1, 2]), bounds=st.none() | BOUNDS)
    def capacity(self, data: st.DataObject, failed: bool, lag: int, bounds: ScalingBounds | None) -> None:
        name = self._pick(data)
        if name is None:
            return
        before = self.versions[name]
        asked = before.bounds if lag == 0 else bounds
        number = before.awaited - lag
        event = (
            CapacityFailed(number, NO_ROOM, self._revision())
            if failed
            else CapacityReady(number, asked or DEFAULT, self._revision(), asked)
        )
        after = self._apply(name, event)
        settled = before.state not in (State.PENDING, State.ACTIVE)
        if settled or number != before.awaited or (not failed and asked != before.bounds):
            assert after == before
        elif not failed:
            assert after.state is State.ACTIVE
            assert (after.applied_bounds, after.bounds_requested) == (asked or DEFAULT, False)
            assert after.serving is not None
            assert after.serving.number == number

    @rule(data=st.data())
    def drained(self, data: st.DataObject) -> None:
        name = self._pick(data)
        if name is None:
            return
        if self.versions[name].state is State.DEACTIVATING:
            assert self._apply(name, Drained()).state is State.DEACTIVATED
        else:
            with pytest.raises(IllegalTransition):
                apply(self.versions[name], Drained())

    @rule(data=st.data())
    def removed(self, data: st.DataObject) -> None:
        name = self._pick(data)
        if name is not None and self.versions[name].state is State.DELETING:
            del self.versions[name], self.frozen[name], self.highest[name]

    # forbidden

    @rule(data=st.data(), configuration=CONFIGURATIONS)
    def edit_what_is_published(self, data: st.DataObject, configuration: Configuration) -> None:
        name = self._pick(data)
        if name is None:
            return
        for event in (Updated(configuration, LATER, "x"), Settled("x")):
            with pytest.raises(IllegalTransition):
                apply(self.versions[name], event)
        if name != LATEST_PUBLISHED:
            with pytest.raises(IllegalTransition):
                apply(self.versions[name], Republished(configuration, LATER, "x"))

    @precondition(lambda self: self.versions[LATEST].state is not State.PENDING)
    @rule()
    def refuse_a_stale_revision(self) -> None:
        with pytest.raises(PreconditionFailed):
            refuse_stale_revision(self.versions[LATEST].revision_id, "created")

    # what must always hold

    @invariant()
    def latest_is_never_invocable(self) -> None:
        version = self.versions[LATEST]
        assert version.state in (State.PENDING, State.ACTIVE_NON_INVOCABLE)
        assert version.serving is None

    @invariant()
    def numbers_keep_their_configuration(self) -> None:
        for name, configuration in self.frozen.items():
            assert self.versions[name].configuration == configuration

    @invariant()
    def only_active_versions_serve_and_nothing_newer_than_their_target(self) -> None:
        for version in self.versions.values():
            assert (version.serving is not None) is (version.state is State.ACTIVE)
            if version.serving is not None:
                assert version.serving.number <= version.target
                assert version.awaited in (version.serving.number, version.target)

    @invariant()
    def targets_only_grow(self) -> None:
        for name, version in self.versions.items():
            assert version.target >= self.highest.get(name, 0)
            self.highest[name] = version.target

    @invariant()
    def states_and_reasons_belong_together(self) -> None:
        for version in self.versions.values():
            assert (version.state_reason is not None) is (version.state in (State.PENDING, State.FAILED))
            if version.state is not State.DELETING:
                in_doubt = version.update_status in (UpdateStatus.IN_PROGRESS, UpdateStatus.FAILED)
                assert (version.update_reason is not None) is in_doubt
            if version.state in (State.DEACTIVATING, State.DEACTIVATED):
                assert version.update_status is not UpdateStatus.IN_PROGRESS

    # inside

    def _pick(self, data: st.DataObject) -> str | None:
        names = sorted(name for name in self.versions if name != LATEST)
        return data.draw(st.sampled_from(names)) if names else None

    def _refused_while_settling(self, name: str) -> bool:
        version = self.versions[name]
        refuses = version.update_status is UpdateStatus.IN_PROGRESS or version.state in (State.PENDING, State.DELETING)
        try:
            refuse_while_settling(version, "arn")
        except ResourceConflict:
            assert refuses
            return True
        assert not refuses
        return False

    def _revision(self) -> str:
        self.revisions += 1
        return f"r{self.revisions}"

    def _apply(self, name: str, event: VersionEvent) -> FunctionVersion:
        before = self.versions[name]
        after = apply(before, event)
        # AWS: create → active, every update call and its completion, publish; scaling and deletion change none.
        completed = isinstance(event, CapacityReady | CapacityFailed) and told(after) != told(before)
        assert (after.revision_id != before.revision_id) is (isinstance(event, CHANGES_REVISION) or completed)
        self._save(after)
        return after

    def _save(self, version: FunctionVersion) -> None:
        self.versions[version.version] = version


TestManagedFunction = ManagedFunction.TestCase
TestManagedFunction.settings = settings(max_examples=settings().max_examples, stateful_step_count=50, deadline=None)
