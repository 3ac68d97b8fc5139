"""Limits of an environment, and egress policies, as rules."""

import pytest

from lambstead.core.egress import EgressRules, parse_rules
from lambstead.core.limits import EnvironmentLimits


def test_tmp_is_not_memory_but_counts_for_the_kernels_limit() -> None:
    limits = EnvironmentLimits.of(memory_mb=128, vcpus=0.07, ephemeral_storage_mb=512, managed=False)
    assert limits.ceiling_bytes == (128 + 512) << 20
    assert limits.exceeds_memory(128 << 20) == ""
    assert "129 MB" in limits.exceeds_memory(129 << 20)
    assert (limits.open_files, limits.processes, limits.cpu_weight) == (1024, 1024, 1.0)
    assert limits.exceeds_processes(1025)
    assert not limits.exceeds_processes(1024)


@pytest.mark.parametrize(
    ("managed", "cores_per_vcpu", "ceiling", "granted"),
    [(True, 1.0, None, 2.0), (True, 0.1, 0.2, 0.2), (False, 0.1, None, 2.0)],
)
def test_a_vcpu_of_an_instance_is_a_ceiling_only_where_it_stands_for_less_than_a_core(
    managed: bool, cores_per_vcpu: float, ceiling: float | None, granted: float
) -> None:
    limits = EnvironmentLimits.of(
        memory_mb=4096, vcpus=2, ephemeral_storage_mb=512, managed=managed, cores_per_vcpu=cores_per_vcpu
    )
    assert limits.cores == ceiling
    assert limits.granted_cores == granted


def test_the_most_permissive_named_group_counts() -> None:
    rules = EgressRules("none", parse_rules("sg-1=none, sg-2=host, sg-3=nat"))
    assert [
        rules.policy(groups)
        for groups in ((), ("sg-9",), ("sg-1",), ("sg-1", "sg-2"), ("sg-1", "sg-3"), ("sg-3", "sg-2"))
    ] == [
        "none",
        "none",
        "none",
        "host",
        "nat",
        "host",
    ]


def test_only_policies_that_keep_something_from_connecting_need_enforcing() -> None:
    assert EgressRules().enforced == ()
    assert EgressRules("nat", parse_rules("sg-1=host")).enforced == ("nat",)
    assert EgressRules("host", parse_rules("sg-1=nat,sg-2=none")).enforced == ("none", "nat")


@pytest.mark.parametrize("text", ["sg-1", "sg-1=all", "1=none", "sg-1=NAT"])
def test_rules_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none, sg-0123=nat or"):
        parse_rules(text)
