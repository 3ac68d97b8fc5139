"""What an environment knows of the agent and the machine it runs on."""

from dataclasses import dataclass
from pathlib import Path

from lambstead.instance.cgroups import Cgroups
from lambstead.instance.isolation import IsolationLevel
from lambstead.instance.server_address import ServerAddress


@dataclass(frozen=True, slots=True)
class Host:
    """Paths are absolute."""

    instance_id: str
    server: ServerAddress
    environments_dir: Path
    sockets_dir: Path
    """For Unix sockets: short, and made when it is needed."""
    runtimes_dir: Path
    level: IsolationLevel = "process"
    cgroups: Cgroups | None = None
    """Where limits are enforced by the kernel; None where the agent watches over them."""
    cores_per_vcpu: float = 1.0
    """Cores of this machine that a vCPU of the instance stands for."""
