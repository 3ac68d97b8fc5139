"""Settings: one frozen tree, built once, read everywhere.

A value comes from the first of these places that names it: a flag, the environment (`LAMBSTEAD_<KEY>`), the file
`lambstead.toml` in the data directory, the default (which may depend on the profile). `Settings.load` checks every value
and refuses what it does not understand with a sentence that names the key, the place and the value, so that a typo is
an error and never a silent default. Nothing else in Lambstead reads the environment or the file.

Durations are written `500ms`, `2s`, `10m`, `1h`, or as a number of seconds. Profiles change defaults, never code paths.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, NewType, cast, get_args

from lambstead.config.durations import duration_text
from lambstead.config.sources import SECRETS, Sources, Switch, read_file
from lambstead.core.account import CONCURRENT_EXECUTIONS
from lambstead.core.egress import Egress, EgressRules, parse_rules

Profile = Literal["dev", "faithful"]
AgentLink = Literal["unix", "tcp"]
RuntimeClient = Literal["link", "official"]
UrlPermissions = Literal["one", "both"]
IsolationChoice = Literal["auto", "sandbox", "landlock", "process", "oci", "gvisor"]
LogLevel = Literal["debug", "info", "warning", "error"]
Region = NewType("Region", str)
AccountId = NewType("AccountId", str)

FILE_NAME: Final = "lambstead.toml"
DEFAULT_DATA_DIR: Final = Path(".lambstead")
"""Below the user's home directory."""
MAX_ENVIRONMENTS: Final = 15_000
"""AWS's own limit for `MinExecutionEnvironments`."""


_MASK = "********"


@dataclass(frozen=True, slots=True)
class ProfileDefaults:
    """What a profile decides when nobody says otherwise."""

    min_environments: int
    idle_instance: timedelta
    url_permissions: UrlPermissions


PROFILES: Final[Mapping[Profile, ProfileDefaults]] = {
    "dev": ProfileDefaults(min_environments=1, idle_instance=timedelta(minutes=1), url_permissions="one"),
    "faithful": ProfileDefaults(min_environments=3, idle_instance=timedelta(minutes=5), url_permissions="both"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can choose. Build it with `Settings.load`; tests may use `dataclasses.replace`."""

    data_dir: Path
    """Holds everything the server keeps: state, code packages, logs, `server.json`. Absolute."""
    runtimes_dir: Path
    """Holds the installed runtimes; several data directories may share one. Absolute."""
    host: str
    """Loopback address the server listens on."""
    port: int
    """TCP port of every API; 0 lets the system choose a free one."""
    gateways: int
    """Processes that accept requests on the port. With 1 the server does it itself; more pay off where it is the bottleneck of many CPUs."""
    profile: Profile
    region: Region
    account_id: AccountId
    log_level: LogLevel
    access_key_id: str
    """What `lambstead env` prints; any credentials are accepted."""
    secret_access_key: str = field(repr=False)
    min_environments: int
    """Environments of a published version whose scaling config names no minimum."""
    slot_wait: timedelta
    """How long an invocation waits for a free slot before it is answered with 429."""
    concurrent_executions: int
    """Most invocations of on-demand functions at one time, reserved and provisioned concurrency included: AWS's account limit."""
    standard_environments: int
    """Most environments of on-demand functions (those without a capacity provider) that exist at one time."""
    idle_environment: timedelta
    """An on-demand environment that nobody used for so long is stopped."""
    idle_instance: timedelta
    """An instance that has had no environment for so long is stopped."""
    instance_lifetime: timedelta
    """An instance of a capacity provider that is so old is replaced by a fresh one."""
    scaling_time_scale: float
    """How many times faster than AWS's the clock of scaling runs: with 60, what takes five minutes there takes five seconds."""
    cores_per_vcpu: float
    """Cores of this machine that a vCPU of an instance stands for: with 0.1, ten vCPUs share a core. Below 1 it is a ceiling for environments that are ready,
    where control groups can be made, and what their CPU utilisation is measured against."""
    runtime_client: RuntimeClient
    """How Python workers get their events: over the invocation link, or with AWS's client speaking HTTP."""
    isolation: IsolationChoice
    """How functions are kept apart; `auto`: the strongest level that works on this machine."""
    egress: Egress
    """Where functions may connect to whose capacity provider has no security group that `security_group_egress` names."""
    security_group_egress: str
    """What security groups of capacity providers stand for: `sg-1=none,sg-2=host`."""
    subnet_zones: str
    """Availability zones of subnets that capacity providers name: `subnet-1=us-east-1c,subnet-2=us-east-1a`. Others are asked of EC2, if the companion runs, and
    else stand in the zones a, b and c in turn. Read when a capacity provider is created."""
    agent_link: AgentLink
    """How agents reach the server: over a Unix socket, or over TCP as agents of other hosts would."""
    instance_poll: timedelta
    """The tick of the reconcile loop: how late a change is noticed when nobody reported it."""
    stream_kib_per_second: int
    """How fast a streamed response flows after its first 6 MiB."""
    url_permissions: UrlPermissions
    """What a function URL for anybody needs of the function's policy: `lambda:InvokeFunctionUrl`, or that and `lambda:InvokeFunction`, as AWS asks of accounts
    that began with URLs after October 2025."""
    stop_wait: timedelta
    """How long a clean stop lets running invocations finish."""
    event_retry_delay: timedelta
    """How long an asynchronous invocation waits after the function's first error; twice as long after the second."""
    event_backoff_first: timedelta
    """How long an asynchronous invocation waits that was throttled or hit by a failure of the platform; doubled every time, up to …"""
    event_backoff_most: timedelta
    """… this long."""
    durable_backoff_first: timedelta
    """How long at most a durable execution waits whose invocation crashed or found no room; doubled every time, up to …"""
    durable_backoff_most: timedelta
    """… this long."""
    time_skip: bool
    """Durable executions that are started from now on skip the time in which they only wait."""
    time_skip_callback_grace: timedelta
    """Real time that others have to complete a callback of such an execution before its timeout is skipped to."""
    endpoint_url_sqs: str
    """Where queues are that get invocation records and dead letters; empty for nowhere. Likewise the next three."""
    endpoint_url_sns: str
    endpoint_url_eventbridge: str
    endpoint_url_s3: str

    companion: Switch
    """Whether Moto stands in for AWS's other services (EC2, S3, SQS, IAM, …); needs the extra `lambstead[companion]`."""
    companion_endpoints: str
    """Where services are that shall not be stood in for: `dynamodb=http://127.0.0.1:8000,sqs=http://127.0.0.1:9324`."""
    chaos: Switch
    """Whether faults may be inflicted on demand (`lambstead chaos`): `off` refuses them."""

    @property
    def egress_rules(self) -> EgressRules:
        """Where which functions may connect to."""
        return EgressRules(self.egress, parse_rules(self.security_group_egress))

    @property
    def zones_by_subnet(self) -> Mapping[str, str]:
        """Availability zones of subnets, as the operator says them."""
        pairs = (each.partition("=") for each in self.subnet_zones.split(",") if each)
        return {subnet.strip(): zone.strip() for subnet, _, zone in pairs}

    @property
    def endpoints_by_service(self) -> Mapping[str, str]:
        """Where services are that are not stood in for, by signing name."""
        pairs = (each.partition("=") for each in self.companion_endpoints.split(",") if each)
        return {service.strip(): url.strip() for service, _, url in pairs}

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def load(cls, environ: Mapping[str, str], home: Path, flags: Mapping[str, object] | None = None) -> "Settings":
        """Settings from flags, environment, file and defaults, in this order of precedence.

        A flag that is None was not given. Relative paths are relative to the current directory, `~` is `home`.
        Raises SettingsError for a bad value, an unknown key, or a file that cannot be read.
        """
        early = Sources(flags or {}, environ, {}, Path(), home)
        data_dir = early.path("data_dir", home / DEFAULT_DATA_DIR)
        file = data_dir / FILE_NAME
        sources = Sources(flags or {}, environ, read_file(file), file, home)
        profile = cast(Profile, sources.choice("profile", get_args(Profile), "dev"))  # choice() checked it
        defaults = PROFILES[profile]
        settings = cls(
            data_dir=data_dir,
            runtimes_dir=sources.path("runtimes_dir", data_dir / "runtimes"),
            host=sources.loopback("host", "127.0.0.1"),
            port=sources.integer("port", 4566, 0, 65_535),
            gateways=sources.integer("gateways", 1, 1, 64),
            profile=profile,
            region=Region(sources.matching("region", "us-east-1", r"[a-z]{2}(-[a-z]+)+-\d{1,2}", "us-east-1")),
            account_id=AccountId(sources.matching("account_id", "000000000000", r"\d{12}", "000000000000")),
            log_level=cast(LogLevel, sources.choice("log_level", get_args(LogLevel), "info")),  # choice() checked it
            access_key_id=sources.matching("access_key_id", "lambstead", r"\w{1,128}", "lambstead"),
            secret_access_key=sources.matching("secret_access_key", "lambstead", r"[\w+/=]{1,256}", "lambstead"),
            min_environments=sources.integer("min_environments", defaults.min_environments, 1, MAX_ENVIRONMENTS),
            slot_wait=sources.duration("slot_wait", timedelta(seconds=2), timedelta(0), timedelta(minutes=1)),
            concurrent_executions=sources.integer("concurrent_executions", CONCURRENT_EXECUTIONS, 1, 1_000_000),
            standard_environments=sources.integer("standard_environments", 100, 1, 10_000),
            idle_environment=sources.duration(
                "idle_environment", timedelta(minutes=10), timedelta(seconds=1), timedelta(hours=24)
            ),
            idle_instance=sources.duration(
                "idle_instance", defaults.idle_instance, timedelta(seconds=1), timedelta(hours=24)
            ),
            instance_lifetime=sources.duration(
                "instance_lifetime", timedelta(days=14), timedelta(seconds=1), timedelta(days=365)
            ),
            scaling_time_scale=sources.number("scaling_time_scale", 1.0, 0.1, 1000.0),
            cores_per_vcpu=sources.number("cores_per_vcpu", 1.0, 0.01, 1.0),
            isolation=cast(  # choice() checked it
                IsolationChoice, sources.choice("isolation", get_args(IsolationChoice), "auto")
            ),
            egress=cast(Egress, sources.choice("egress", get_args(Egress), "host")),  # choice() checked it
            security_group_egress=sources.egress_rules("security_group_egress"),
            subnet_zones=sources.subnet_zones("subnet_zones"),
            instance_poll=sources.duration(
                "instance_poll", timedelta(seconds=5), timedelta(milliseconds=50), timedelta(minutes=1)
            ),
            runtime_client=cast(  # choice() checked it
                RuntimeClient, sources.choice("runtime_client", get_args(RuntimeClient), "link")
            ),
            agent_link=cast(
                AgentLink, sources.choice("agent_link", get_args(AgentLink), "unix")
            ),  # choice() checked it
            stream_kib_per_second=sources.integer("stream_kib_per_second", 2048, 32, 65_536),
            url_permissions=cast(  # choice() checked it
                UrlPermissions,
                sources.choice("url_permissions", get_args(UrlPermissions), defaults.url_permissions),
            ),
            stop_wait=sources.duration("stop_wait", timedelta(seconds=10), timedelta(0), timedelta(minutes=15)),
            event_retry_delay=sources.duration(
                "event_retry_delay", timedelta(minutes=1), timedelta(milliseconds=10), timedelta(hours=1)
            ),
            event_backoff_first=sources.duration(
                "event_backoff_first", timedelta(seconds=1), timedelta(milliseconds=10), timedelta(minutes=5)
            ),
            event_backoff_most=sources.duration(
                "event_backoff_most", timedelta(minutes=5), timedelta(milliseconds=10), timedelta(hours=1)
            ),
            durable_backoff_first=sources.duration(
                "durable_backoff_first", timedelta(seconds=1), timedelta(milliseconds=10), timedelta(hours=1)
            ),
            durable_backoff_most=sources.duration(
                "durable_backoff_most", timedelta(minutes=5), timedelta(milliseconds=10), timedelta(hours=1)
            ),
            time_skip=sources.flag("time_skip", default=False),
            time_skip_callback_grace=sources.duration(
                "time_skip_callback_grace", timedelta(seconds=1), timedelta(0), timedelta(hours=1)
            ),
            endpoint_url_sqs=sources.url("endpoint_url_sqs"),
            endpoint_url_sns=sources.url("endpoint_url_sns"),
            endpoint_url_eventbridge=sources.url("endpoint_url_eventbridge"),
            endpoint_url_s3=sources.url("endpoint_url_s3"),
            companion=sources.switch("companion", "on"),
            companion_endpoints=sources.endpoints("companion_endpoints"),
            chaos=sources.switch("chaos", "off"),
        )
        sources.refuse_unknown([each.name for each in fields(cls)])
        return settings

    def described(self) -> dict[str, str | int | float]:
        """Every setting as printable text or number, secrets masked."""
        return {each.name: _printable(each.name, getattr(self, each.name)) for each in fields(self)}


def _printable(key: str, value: object) -> str | int | float:
    if key in SECRETS:
        return _MASK
    if isinstance(value, timedelta):
        return duration_text(value)
    return value if isinstance(value, int | float) else str(value)
