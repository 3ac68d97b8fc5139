"""What one execution environment may take, and what follows when it takes more.

Memory is what processes hold for themselves (anonymous pages). What lies in `/tmp` is not memory, although a sandbox keeps it there; so the kernel's
limit is the sum of both, and the agent, which can tell them apart, enforces the smaller number.
"""

from dataclasses import dataclass

OPEN_FILES_MANAGED = 4_096
"""File descriptors per environment on managed instances (Developer Guide, quotas of Lambda Managed Instances)."""
OPEN_FILES_ON_DEMAND = 1_024
"""File descriptors per environment of other functions (Developer Guide, quotas)."""
PROCESSES = 1_024
"""Processes and threads per environment (Developer Guide, quotas). For managed instances AWS names no number: the same here."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class EnvironmentLimits:
    """Limits of one environment."""

    memory_bytes: int
    vcpus: float
    """A share: what nobody else wants may be used (see decision record 0025), unless `cores` is a ceiling."""
    temp_bytes: int
    """Size of `/tmp`."""
    open_files: int
    """Per process."""
    processes: int
    """Processes and threads together."""
    cores: float | None = None
    """Cores of this machine that it may use at most once it is ready; None without a ceiling."""

    @classmethod
    def of(
        cls, *, memory_mb: int, vcpus: float, ephemeral_storage_mb: int, managed: bool, cores_per_vcpu: float = 1.0
    ) -> "EnvironmentLimits":
        """From a function's configuration. Where a vCPU of an instance stands for less than a core, it is a ceiling too."""
        files = OPEN_FILES_MANAGED if managed else OPEN_FILES_ON_DEMAND
        cores = vcpus * cores_per_vcpu if managed and cores_per_vcpu < 1 else None
        return cls(memory_mb * _MIB, vcpus, ephemeral_storage_mb * _MIB, files, PROCESSES, cores)

    @property
    def granted_cores(self) -> float:
        """What its processor time is measured against: at full use, utilization is 1."""
        return self.vcpus if self.cores is None else self.cores

    @property
    def cpu_weight(self) -> float:
        """Its share of a busy machine, where an ordinary process has 1: its vCPUs.

        Never less than 1: what AWS gives a small function is a part of a processor that nobody else wants, not a place behind everything else that runs.
        """
        return max(1.0, self.vcpus)

    @property
    def ceiling_bytes(self) -> int:
        """Memory and `/tmp` together: where the kernel kills."""
        return self.memory_bytes + self.temp_bytes

    def exceeds_memory(self, memory_bytes: int) -> str:
        """In words for the operator, that so much is more than is configured; empty if it is not."""
        if memory_bytes <= self.memory_bytes:
            return ""
        return f"memory: {memory_bytes // _MIB} MB are in use, {self.memory_bytes // _MIB} MB are configured"

    def exceeds_processes(self, processes: int) -> str:
        """Likewise for processes."""
        return f"processes: {processes} are running, {self.processes} may" if processes > self.processes else ""
