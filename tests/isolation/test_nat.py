"""Egress `nat`: out into the world by address translation, names included, and not to the machine's loopback.

The agent runs on a machine made for the test: network namespaces, one for the machine and one for the world, and a `resolv.conf` of its own. It is
reached by its Unix socket, which no network matters to.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.instance.harness import running_agent

from lambstead.instance import nat
from lambstead.instance.cgroups import find_cgroups, group_name
from lambstead.instance.levels import LevelFails, try_egress, try_level

pytestmark = pytest.mark.anyio

SOURCE = """
import os, socket

def reach(host, port):
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            return connection.makefile().readline()
    except OSError as exc:
        return type(exc).__name__

def handler(event, context):
    return {"reached": {f"{host}:{port}": reach(host, port) for host, port in event}, "names": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else []}
"""
SERVE = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, peer = listener.accept()
    with connection:
        connection.sendall(sys.argv[2].encode() + b"\\n")
"""
RESOLVE = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print(53, flush=True)
while True:
    query, peer = server.recvfrom(512)
    end = query.index(b"\\0", 12) + 5
    is_a = query[end - 4:end - 2] == b"\\0\\1"
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton(sys.argv[2]) if is_a else b""
    server.sendto(query[:2] + b"\\x81\\x80\\0\\1\\0" + bytes([is_a]) + b"\\0\\0\\0\\0" + query[12:end] + answer, peer)
"""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made here: {' '.join(command)}: {done.stderr.strip()}")


@dataclass(frozen=True)
class Machine:
    """A machine with one cable into the world."""

    namespace: str
    address: str
    world: str
    """The world's namespace; its address is that of everything out there."""
    world_address: str
    folder: Path
    servers: contextlib.ExitStack

    @property
    def enter(self) -> tuple[str, ...]:
        """Puts a command on this machine, with its own resolv.conf."""
        bound = f'mount --bind {self.folder}/resolv.conf "$(readlink -f /etc/resolv.conf)" && exec "$@"'
        return ("nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--mount", "sh", "-c", bound, "sh")

    def serve(self, source: str, *arguments: str, world: bool = False) -> int:
        """Run a server on the machine, or in the world; its port."""
        namespace = self.world if world else self.namespace
        process = self.servers.enter_context(
            subprocess.Popen(
                ["ip", "netns", "exec", namespace, sys.executable, "-c", source, *arguments],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.servers.callback(process.kill)
        assert process.stdout is not None
        return int(process.stdout.readline())


@pytest.fixture(params=["resolver on loopback", "resolver elsewhere"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need iproute2's `ip` and root")
    mark = uuid.uuid4().hex[:6]
    here, world = f"lamb-{mark}", f"lamb-{mark}-w"
    net = f"10.{int(mark[:2], 16)}.{int(mark[2:4], 16)}"
    with contextlib.ExitStack() as stack:
        for name in (here, world):
            run("ip", "netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        run("ip", "-n", here, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", world)
        for name, address in ((here, f"{net}.2"), (world, f"{net}.1")):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", name, "link", "set", link, "up")
        run("ip", "-n", here, "route", "add", "default", "via", f"{net}.1")
        made = Machine(here, f"{net}.2", world, f"{net}.1", tmp_path, stack)
        on_loopback = request.param == "resolver on loopback"
        resolver = "127.0.0.1" if on_loopback else made.world_address
        (tmp_path / "resolv.conf").write_text(f"nameserver {resolver}\n")
        made.serve(RESOLVE, resolver, made.world_address, world=not on_loopback)
        yield made


def needs_nat(level: str) -> None:
    try:
        try_level(level)  # type: ignore[arg-type]  # a parameter of the test
        try_egress(level, "nat")  # type: ignore[arg-type]
    except LevelFails as exc:
        pytest.skip(f"{exc} {exc.advice}")


@pytest.fixture(params=nat.PROGRAMS)
def translator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only program that is found to translate addresses."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    if request.param == "pasta":
        pytest.skip("as root pasta may not enter the network; test_ordinary_user tries it")
    folder = tmp_path / "bin"
    folder.mkdir()
    for each in os.get_exec_path():
        for path in Path(each).iterdir() if Path(each).is_dir() else ():
            if path.name not in nat.PROGRAMS or path.name == request.param:
                with contextlib.suppress(FileExistsError):
                    (folder / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(folder))
    return str(request.param)


@pytest.mark.parametrize("level", ["sandbox", "oci", "gvisor"])
async def test_functions_reach_the_world_and_its_names_but_no_loopback_of_the_machine(
    machine: Machine, translator: str, level: str, tmp_path: Path, runtimes: Path
) -> None:
    needs_nat(level)
    outside = machine.serve(SERVE, "0.0.0.0", "world", world=True)
    loopback = machine.serve(SERVE, "127.0.0.1", "loopback")
    folder = tmp_path / "a"
    folder.mkdir()
    async with running_agent(folder, runtimes, prefix=machine.enter, level=level) as gateway:
        environment = await gateway.start(SOURCE, egress="nat")
        await environment.until_slots(1)
        world = [(machine.world_address, outside), ("db.example", outside)]
        # What address translators call the machine, and addresses that could mean it.
        ours = ("127.0.0.1", "10.0.2.2", "10.0.2.3", "10.0.2.100", machine.address, "localhost", "0.0.0.0")
        targets = [*world, *((host, loopback) for host in ours)]
        found = (await environment.invoke(targets)).json["reached"]
        assert {f"{host}:{port}": found.pop(f"{host}:{port}") for host, port in world} == {
            f"{host}:{port}": "world\n" for host, port in world
        }
        assert len(found) == len(ours)
        assert set(found.values()) <= {"ConnectionRefusedError", "TimeoutError", "OSError", "gaierror"}, found
        await environment.stop()
        translators = [pid for pid in gateway.processes() if translator in Path(f"/proc/{pid}/cmdline").read_text()]
        assert not translators


def test_the_machines_mounts_are_left_alone(machine: Machine) -> None:
    """slirp4netns confines itself by taking down mounts, and those of `ip netns` are shared."""
    needs_nat("sandbox")
    done = subprocess.run(["ip", "netns", "exec", machine.namespace, "true"], capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize("level", ["sandbox", "oci", "gvisor"])
async def test_nothing_is_left_when_the_agent_is_killed(
    level: str, machine: Machine, tmp_path: Path, runtimes: Path
) -> None:
    needs_nat(level)
    folder = tmp_path / "a"
    folder.mkdir()
    async with running_agent(folder, runtimes, prefix=machine.enter, level=level) as gateway:
        environment = await gateway.start(SOURCE, egress="nat")
        await environment.until_slots(1)
        assert gateway.process is not None
        gateway.process.kill()
        # running_agent waits until no process of the instance is left
    cgroups = find_cgroups()
    if cgroups is not None:
        cgroups.sweep(group_name(gateway.instance_id, ""))  # as the server does
