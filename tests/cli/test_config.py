"""Settings: where values come from, and the sentences for those that cannot be used."""

from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lambstead.config import PROFILES, Settings, SettingsError, duration_text

HOME = Path("/home/somebody")
DURATION_KEYS = [
    *("slot_wait", "idle_environment", "idle_instance", "instance_poll", "stop_wait"),
    *("event_retry_delay", "event_backoff_first", "event_backoff_most"),
    *("durable_backoff_first", "durable_backoff_most"),
]
ENDPOINT_KEYS = ["endpoint_url_sqs", "endpoint_url_sns", "endpoint_url_eventbridge", "endpoint_url_s3"]


def load(environ: dict[str, str] | None = None, **flags: object) -> Settings:
    return Settings.load(environ or {}, HOME, flags)


def refusal(environ: dict[str, str] | None = None, **flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ, **flags)
    return str(caught.value)


def attempt(environ: dict[str, str], **flags: object) -> Settings | str:
    """The settings, or the sentence of the refusal."""
    try:
        return load(environ, **flags)
    except SettingsError as exc:
        return str(exc)


def test_defaults() -> None:
    settings = load()
    assert settings.data_dir == HOME / ".lambstead"
    assert settings.runtimes_dir == HOME / ".lambstead" / "runtimes"
    assert (settings.host, settings.port, settings.authority) == ("127.0.0.1", 4566, "127.0.0.1:4566")
    assert (settings.region, settings.account_id, settings.log_level) == ("us-east-1", "000000000000", "info")
    assert settings.profile == "dev"
    assert settings.slot_wait == timedelta(seconds=2)
    assert settings.standard_environments == 100
    assert settings.concurrent_executions == 1000
    assert settings.idle_environment == timedelta(minutes=10)
    assert settings.event_retry_delay == timedelta(minutes=1)
    assert (settings.event_backoff_first, settings.event_backoff_most) == (timedelta(seconds=1), timedelta(minutes=5))
    assert {getattr(settings, key) for key in ENDPOINT_KEYS} == {""}


@pytest.mark.parametrize("key", ENDPOINT_KEYS)
def test_endpoints_are_urls_without_a_path(key: str) -> None:
    for url in ("http://127.0.0.1:9324", "https://sqs.us-east-1.amazonaws.com", "http://[::1]:4566/"):
        assert getattr(load({f"LAMBSTEAD_{key.upper()}": url}), key) == url
    for wrong in ("127.0.0.1:9324", "ftp://x", "http://", "http://x/path", "http://x y"):
        assert key.upper() in refusal({f"LAMBSTEAD_{key.upper()}": wrong})


@pytest.mark.parametrize(
    ("profile", "min_environments", "idle_instance"),
    [
        ("dev", 1, timedelta(minutes=1)),
        ("faithful", 3, timedelta(minutes=5)),
    ],
)
def test_profiles_choose_defaults(profile: str, min_environments: int, idle_instance: timedelta) -> None:
    settings = load({"LAMBSTEAD_REGION": "eu-west-1"}, profile=profile)
    assert (settings.min_environments, settings.idle_instance) == (min_environments, idle_instance)


def test_a_profile_changes_nothing_that_was_said() -> None:
    environ = {"LAMBSTEAD_MIN_ENVIRONMENTS": "2", "LAMBSTEAD_IDLE_INSTANCE": "7s"}
    dev, faithful = (load(environ, profile=profile) for profile in PROFILES)
    assert dev.min_environments == faithful.min_environments == 2
    assert dev.idle_instance == faithful.idle_instance == timedelta(seconds=7)


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "lambstead.toml").write_text('port = 1\nregion = "eu-west-1"\nlog_level = "debug"\n')
    settings = load({"LAMBSTEAD_PORT": "2", "LAMBSTEAD_REGION": "eu-west-2"}, port=3, data_dir=tmp_path)
    assert (settings.port, settings.region, settings.log_level, settings.host) == (3, "eu-west-2", "debug", "127.0.0.1")


def test_data_directory_may_come_from_the_environment_and_holds_the_file(tmp_path: Path) -> None:
    (tmp_path / "lambstead.toml").write_text('port = 1234\nruntimes_dir = "shared"\n')
    settings = load({"LAMBSTEAD_DATA": str(tmp_path)})
    assert (settings.data_dir, settings.port) == (tmp_path, 1234)
    assert settings.runtimes_dir == tmp_path / "shared"


def test_paths_are_absolute_and_know_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load({"LAMBSTEAD_RUNTIMES_DIR": "~/runtimes"}, data_dir=Path("here"))
    assert settings.data_dir == tmp_path / "here"
    assert settings.runtimes_dir == HOME / "runtimes"


def test_an_empty_variable_is_unset() -> None:
    assert load({"LAMBSTEAD_PORT": ""}).port == 4566


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("0s", timedelta(0)),
        ("1.5", timedelta(milliseconds=1500)),
        (" 30 s ", timedelta(seconds=30)),
        ("1m", timedelta(minutes=1)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert load({"LAMBSTEAD_SLOT_WAIT": text}).slot_wait == expected


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("PORT", "65536", "LAMBSTEAD_PORT: '65536' is not a whole number from 0 to 65535."),
        ("PORT", "-1", "LAMBSTEAD_PORT: '-1' is not a whole number from 0 to 65535."),
        ("PORT", "http", "LAMBSTEAD_PORT: 'http' is not a whole number from 0 to 65535."),
        ("PORT", "45.6", "LAMBSTEAD_PORT: '45.6' is not a whole number from 0 to 65535."),
        ("PROFILE", "prod", "LAMBSTEAD_PROFILE: 'prod' is not one of dev, faithful."),
        ("LOG_LEVEL", "loud", "LAMBSTEAD_LOG_LEVEL: 'loud' is not one of debug, info, warning, error."),
        (
            "REGION",
            "Frankfurt",
            "LAMBSTEAD_REGION: 'Frankfurt' does not look like one; an example is us-east-1.",
        ),
        ("ACCOUNT_ID", "12", "LAMBSTEAD_ACCOUNT_ID: '12' does not look like one; an example is 000000000000."),
        (
            "SLOT_WAIT",
            "2 fortnights",
            "LAMBSTEAD_SLOT_WAIT: '2 fortnights' is not a duration from 0s to 1m (write 500ms, 2s, 10m or 1h).",
        ),
        (
            "SLOT_WAIT",
            "2m",
            "LAMBSTEAD_SLOT_WAIT: '2m' is not a duration from 0s to 1m (write 500ms, 2s, 10m or 1h).",
        ),
        ("MIN_ENVIRONMENTS", "0", "LAMBSTEAD_MIN_ENVIRONMENTS: '0' is not a whole number from 1 to 15000."),
        ("PROT", "1", "The environment variable LAMBSTEAD_PROT is not a setting; did you mean LAMBSTEAD_PORT?"),
        ("QQQQQQ", "1", "The environment variable LAMBSTEAD_QQQQQQ is not a setting."),
    ],
)
def test_bad_environment_values_are_named(key: str, value: str, sentence: str) -> None:
    assert refusal({f"LAMBSTEAD_{key}": value}) == sentence


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.com", "localhost.example.com"])
def test_only_loopback_is_served_while_any_credentials_are_accepted(host: str) -> None:
    sentence = refusal(host=host)
    assert sentence.startswith(f"--host: '{host}' is not a loopback address.")
    assert sentence.endswith("use 127.0.0.1.")


@pytest.mark.parametrize(
    ("host", "authority"),
    [("localhost", "localhost:4566"), ("127.1.2.3", "127.1.2.3:4566"), ("::1", "[::1]:4566")],
)
def test_every_loopback_address_is_served(host: str, authority: str) -> None:
    assert load(host=host).authority == authority


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = 70000", "port: 70000 is not a whole number from 0 to 65535."),
        ("port = true", "port: True is not a whole number from 0 to 65535."),
        ("port = [4566]", "port: [4566] is not a whole number from 0 to 65535."),
        ("slot_wait = true", "slot_wait: True is not a duration from 0s to 1m (write 500ms, 2s, 10m or 1h)."),
        ("region = 1", "region: 1 does not look like one; an example is us-east-1."),
        ("runtimes_dir = 1", "runtimes_dir: 1 is not a path."),
        ("prot = 1", "prot is not a setting of this file; did you mean port?"),
        ('data_dir = "x"', "data_dir is not a setting of this file."),
        ("[server]\nport = 1", "server is not a setting of this file."),
    ],
)
def test_bad_file_values_are_named_with_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "lambstead.toml"
    file.write_text(text)
    assert refusal(data_dir=tmp_path) == f"{file}: {sentence}"


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2", b"\xff\xfe"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lambstead.toml"
    file.write_bytes(content)
    assert str(file) in refusal(data_dir=tmp_path)


def test_a_file_that_is_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "lambstead.toml").mkdir()
    assert refusal(data_dir=tmp_path).startswith(f"{tmp_path / 'lambstead.toml'} cannot be read: ")


def test_secrets_are_masked_wherever_settings_are_printed() -> None:
    settings = load({"LAMBSTEAD_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"})
    assert settings.secret_access_key == "wJalrXUtnFEMI"
    assert "wJalrXUtnFEMI" not in repr(settings)
    assert "wJalrXUtnFEMI" not in str(settings.described())
    assert settings.described()["secret_access_key"] == "********"
    assert "not a secret!" not in refusal({"LAMBSTEAD_SECRET_ACCESS_KEY": "not a secret!"})


def test_description_names_every_setting() -> None:
    settings = load()
    assert list(settings.described()) == [each.name for each in fields(Settings)]
    assert settings.described()["idle_environment"] == "10m"


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load().port = 1  # type: ignore[misc]  # the type checker says so as well


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(key=st.sampled_from([each.name for each in fields(Settings)]), value=texts)
@example(key="slot_wait", value="9" * 400)
@example(key="port", value="9" * 5000)
@example(key="port", value="٤٥٦٦")
@example(key="host", value="127.0.0.1%lo")
def test_any_value_is_accepted_within_its_limits_or_refused_by_name(key: str, value: str) -> None:
    variable = "LAMBSTEAD_" + ("DATA" if key == "data_dir" else key.upper())
    settings = attempt({variable: value})
    if isinstance(settings, str):
        assert variable in settings or "lambstead.toml cannot be read" in settings
        assert settings.endswith((".", "?"))
        assert "\n" not in settings
        return
    assert 0 <= settings.port <= 65_535
    assert 1 <= settings.min_environments <= 15_000
    assert timedelta(0) <= settings.slot_wait <= timedelta(minutes=1)
    assert settings.profile in PROFILES
    assert settings.data_dir.is_absolute()
    assert settings.runtimes_dir.is_absolute()
    assert not set("'\"\n`$ ") & set(settings.secret_access_key + settings.access_key_id + settings.region)


toml_values = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.dates(), st.lists(st.integers(), max_size=2), st.just({"a": 1})
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([each.name for each in fields(Settings) if each.name != "data_dir"]), value=toml_values)
@example(key="idle_environment", value=86_400_000_000_000)  # seconds that are more days than Python counts
def test_any_toml_value_is_accepted_or_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None  # TOML's own spelling
    shown = text or ("{ a = 1 }" if isinstance(value, dict) else str(value))
    file = tmp_path / "lambstead.toml"
    file.write_text(f"{key} = {shown}\n")
    result = attempt({}, data_dir=tmp_path)
    if isinstance(result, str):
        assert result.startswith(f"{file}")
        assert key in result or "TOML" in result


@given(st.sampled_from(DURATION_KEYS), st.integers(min_value=1, max_value=60_000))
def test_a_printed_duration_is_read_back(key: str, milliseconds: int) -> None:
    text = duration_text(timedelta(milliseconds=milliseconds))
    settings = attempt({f"LAMBSTEAD_{key.upper()}": text})
    if isinstance(settings, str):
        # Too short or too long for this key: then another key takes it.
        settings, key = load({"LAMBSTEAD_SLOT_WAIT": text}), "slot_wait"
    assert getattr(settings, key) == timedelta(milliseconds=milliseconds)


def test_zones_of_subnets_are_read_and_checked() -> None:
    said = load({"LAMBSTEAD_SUBNET_ZONES": "subnet-1=us-east-1c, subnet-0ab=eu-west-1a"})
    assert said.zones_by_subnet == {"subnet-1": "us-east-1c", "subnet-0ab": "eu-west-1a"}
    assert load().zones_by_subnet == {}
    for wrong in ("subnet-1", "subnet-1=c", "vpc-1=us-east-1c", "subnet-1=us-east-1", "subnet-1=us-east-1c,"):
        assert "subnet-1=us-east-1c" in refusal({"LAMBSTEAD_SUBNET_ZONES": wrong})
