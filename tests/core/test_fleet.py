"""The fleet as a value: what agents measured, per environment and per instance."""

from datetime import UTC, datetime, timedelta

from lambstead.core.catalogue import LAMBDA_OWNED, InstanceType
from lambstead.core.fleet import Environment, Fleet, Instance, PublicationKey, Reading

NOW = datetime(2026, 11, 21, tzinfo=UTC)
LATER = NOW + timedelta(seconds=2)


def fleet(provider: str | None, kind: InstanceType) -> Fleet:
    """One instance with two environments of 1 and 3 vCPUs."""
    running = Fleet().with_instance(Instance("i-1", provider, kind, "us-east-1a", NOW))
    for name, vcpus in (("one", 1.0), ("three", 3.0)):
        key = PublicationKey(name, "1", 1)
        running = running.with_environment(Environment(name, "i-1", key, 4, vcpus, 2048, NOW, timedelta(seconds=3)))
    return running


def test_an_instance_takes_what_its_environments_take() -> None:
    measured = fleet("pool", InstanceType("m7i.2xlarge", "x86_64", 8, 32_768)).measured(
        {"one": Reading(NOW, 5.0, 1.0, 100), "three": Reading(LATER, 7.0, 0.5, 200)}
    )
    assert measured.environments["one"].reading == Reading(NOW, 5.0, 1.0, 100)
    assert measured.reading("i-1") == Reading(LATER, 12.0, 2.5 / 8, 300)


def test_lambdas_own_instance_has_no_size_to_take_a_share_of() -> None:
    measured = fleet(None, LAMBDA_OWNED).measured({"one": Reading(NOW, 5.0, 1.0, 100)})
    assert measured.reading("i-1") == Reading(NOW, 5.0, 1.0, 100)


def test_readings_of_what_is_gone_are_dropped_and_nothing_measured_is_no_reading() -> None:
    running = fleet("pool", LAMBDA_OWNED)
    assert running.measured({"gone": Reading(NOW, 5.0, 1.0, 100)}) is running
    assert running.reading("i-1") is None
