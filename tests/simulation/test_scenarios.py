"""The scenarios of examples/scenarios, and the facts that they show."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.harness import CHECKOUT

from lambstead.simulation.report import rows_csv
from lambstead.simulation.run import Result, Row, Summary, simulate
from lambstead.simulation.scenario import Scenario, ScenarioError

SCENARIOS = CHECKOUT / "examples" / "scenarios"


def text_of(name: str) -> str:
    return (SCENARIOS / f"{name}.toml").read_text()


def function(result: Result, name: str = "api") -> Summary:
    return next(each for each in result.functions if each.function == name)


def rows(result: Result, since: float = 0, until: float = 1e9, name: str = "api") -> list[Row]:
    return [row for row in result.rows if row.function == name and since <= row.second < until]


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_can_be_read(path: Path) -> None:
    assert Scenario.parse(path.read_text()).title


def test_half_as_much_again_is_absorbed_at_once() -> None:
    result = simulate(text_of("step"))
    assert function(result).throttled == 0
    assert rows(result)[-1].slot_utilization <= 2 / 3


def test_a_step_of_twice_as_much_is_throttled_until_capacity_comes() -> None:
    result = simulate(text_of("step").replace("to = 1500", "to = 2500"))
    assert function(result).throttled > 0
    assert function(result).throttles.keys() == {"Concurrency"}
    refusing = [row.second for row in rows(result) if row.throttled]
    assert max(refusing) - min(refusing) < 5 * 60
    assert sum(row.throttled for row in rows(result, since=10 * 60)) == 0


def test_load_that_doubles_every_five_minutes_is_served_and_faster_growth_is_not() -> None:
    slow, fast = simulate(text_of("doubling")), simulate(text_of("too-fast"))
    assert function(slow).throttled == 0
    assert rows(slow, until=15 * 60)[-1].rate > 7900
    assert function(fast).throttles["Concurrency"] > 0


def test_cpu_that_runs_out_is_named_as_the_cause() -> None:
    result = simulate(text_of("too-fast").replace('cpu = "4ms"', 'cpu = "10ms"'))
    assert function(result).throttles["CPU"] > 0


def test_what_was_scaled_out_goes_in_the_stated_time_after_the_load_ends() -> None:
    result = simulate(text_of("doubling").replace('duration = "25m"', 'duration = "40m"'))
    most = function(result).most_environments
    back = next(row.second for row in rows(result, since=15 * 60) if row.ready == rows(result)[0].ready)
    assert most > 60
    assert back - 15 * 60 <= (5 + 1 + 10) * 60, "five minutes, and log(74/11) / log(4/3) = 7 steps and a little"


def test_a_lost_zone_throttles_nobody_and_is_made_up_for_within_minutes() -> None:
    result = simulate(text_of("zone-loss"))
    assert function(result).throttled == 0
    before = rows(result, until=300)[-1].ready
    lost = rows(result, since=300)[0]
    assert lost.ready <= before * 0.7
    assert 0 < function(result).lost <= 2000 * 0.1, "what ran there, and no more"
    assert rows(result, since=300 + 180)[0].ready == lost.desired
    assert all(row.ready == row.desired for row in rows(result, since=20 * 60))


def test_a_maximum_keeps_a_noisy_neighbour_from_taking_the_providers_vcpus() -> None:
    kept = simulate(text_of("noisy-neighbour"))
    assert function(kept).throttled == 0
    assert function(kept, "batch").throttles["CPU"] > 0
    assert function(kept, "batch").most_environments == 30
    free = simulate(text_of("noisy-neighbour").replace("maximum = 30\n", ""))
    assert function(free).throttled > 0
    assert any("cannot grow" in note.what for note in free.notes)


def test_a_deploy_at_the_peak_throttles_nobody_and_loses_nothing() -> None:
    result = simulate(text_of("deploy-at-peak"))
    assert (function(result).throttled, function(result).lost) == (0, 0)
    assert min(row.ready for row in rows(result, 15 * 60, 18 * 60)) >= 45


def test_a_killed_instance_loses_what_ran_on_it_and_is_replaced() -> None:
    event = '\n[[event]]\nat = "5m"\nkind = "kill_instances"\ncount = 1\n'
    result = simulate(text_of("zone-loss").split("[[event]]")[0] + event)
    assert function(result).throttled == 0
    assert 0 < function(result).lost < 60
    assert rows(result, since=300)[0].ready < rows(result, until=300)[-1].ready
    assert rows(result, since=360)[0].ready == rows(result, until=300)[-1].ready


def test_the_bill_is_instances_with_fee_and_requests() -> None:
    steady = text_of("zone-loss").split("[[event]]")[0]
    result = simulate(steady)
    instances = sum(row.usd_per_hour for row in result.rows) * 5 / 3600
    assert result.usd == pytest.approx(instances + 2000 * 1800 * 0.2 / 1e6)
    one = min(row.usd_per_hour / row.instances for row in result.rows)
    assert one == pytest.approx(0.1785 * 1.15)


def test_the_same_scenario_gives_the_same_result() -> None:
    assert simulate(text_of("zone-loss")) == simulate(text_of("zone-loss"))


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('title = "A step of 50 %"', "", "title: it is missing; it has to be a text."),
        ('"15m"', '"15"', "duration: '15' is not a duration such as 50ms, 5s, 10m or 1h."),
        ('"step"', '"stairs"', "function 1, load, shape: 'stairs' is not one of steady, step, spike, doubling, daily."),
        ('provider = "pool"', 'provider = "pol"', "function api: there is no provider 'pol'."),
        ('cpu = "4ms"', "slots = 0", "function 1, slots: 0 is not a number from 1 to 1600."),
        ('cpu = "4ms"', "nonsense = 1", "function 1, nonsense: there is no such key here; there are cpu, duration"),
        ("[[provider]]", "[[provider", "It is not valid TOML"),
        ('duration = "15m"', 'duration = "15m"\ntick = "1ms"', "duration: 900000 ticks are more than 100000."),
    ],
)
def test_a_mistake_in_a_scenario_is_one_sentence_that_names_its_place(before: str, after: str, sentence: str) -> None:
    with pytest.raises(ScenarioError) as refusal:
        Scenario.parse(text_of("step").replace(before, after))
    assert str(refusal.value).startswith(sentence)


# --- the command ------------------------------------------------------------------------------------------------------------


def lambstead(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lambstead", "simulate", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_the_command_shows_a_table_and_writes_rows_and_pictures(tmp_path: Path) -> None:
    scenario = str(SCENARIOS / "step.toml")
    pictures = [tmp_path / "step.png", tmp_path / "step.svg"]
    shown = lambstead(scenario, "--csv", str(tmp_path / "step.csv"), "--plot", str(pictures[0]))
    assert shown.returncode == 0, shown.stderr
    assert "A step of 50 %" in shown.stdout
    assert "management fee and requests included" in shown.stdout
    assert pictures[0].read_bytes().startswith(b"\x89PNG")
    assert lambstead(scenario, "--plot", str(pictures[1])).returncode == 0
    assert b"<svg" in pictures[1].read_bytes()
    written = list(csv.DictReader(io.StringIO((tmp_path / "step.csv").read_text())))
    assert len(written) == 180
    assert written[0]["function"] == "api"


def test_the_command_gives_the_whole_result_as_json() -> None:
    shown = lambstead(str(SCENARIOS / "step.toml"), "--json")
    document = json.loads(shown.stdout)
    assert document["functions"][0]["throttled"] == 0
    assert len(document["rows"]) == 180


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('title = "x"')
    for words, sentence in (
        ((str(tmp_path / "no.toml"),), "cannot be read"),
        ((str(tmp_path / "bad.toml"),), "duration: it is missing"),
        ((str(SCENARIOS / "step.toml"), "--plot", "x.gif"), "Let it end in .png or .svg."),
        ((str(SCENARIOS / "step.toml"), "--csv", str(tmp_path / "no" / "x.csv")), "cannot be written"),
    ):
        failed = lambstead(*words)
        assert failed.returncode == 2
        assert sentence in failed.stderr
        assert "Traceback" not in failed.stderr


def test_rows_are_the_same_in_every_format() -> None:
    result = simulate(text_of("step"))
    assert len(rows_csv(result).splitlines()) == len(result.rows) + 1
