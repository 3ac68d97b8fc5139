"""What a function tries in order to get out, at every isolation level that works here: all contained, server and neighbours unharmed.

The attacker runs code that it gets as its event; the victim is another function on the same capacity provider, which is what AWS calls one trust
domain: even there nothing of the other can be seen. `process` is in the tests only where it contains something.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
from tests.harness import (
    Server,
    create_function,
    create_provider,
    invoke,
    publish_managed,
    running,
    wait_active,
    wait_for,
)

from lambstead.core.log_streams import instance_mark
from lambstead.instance.cgroups import find_cgroups
from lambstead.instance.isolation import OWN_ROOT, IsolationLevel
from lambstead.instance.levels import LevelFails, try_level
from lambstead.instance.strays import find_strays

EXPLORER = """
import json, os, pathlib, resource, signal, socket, subprocess, sys, time
import urllib.request

def handler(event, context):
    names = dict(globals())
    exec(event, names)
    return names.get("found")
"""
SECRET = "the-victims-secret"


@dataclass(frozen=True)
class Scene:
    """A server at one level with an attacker and a victim."""

    level: str
    server: Server

    def attack(self, code: str, name: str = "attacker") -> Any:
        """What the attacker's code puts into `found`; its error if it ended in one."""
        answer = invoke(self.server.aws, name, code)
        return answer.payload if answer.error is None else RuntimeError(answer.payload)

    def victim_serves(self) -> bool:
        return bool(invoke(self.server.aws, "victim", "found = 'unharmed'").payload == "unharmed")

    def victim_pid(self) -> int:
        """As this machine counts; of gVisor, which runs functions by processes of its own, the first of those."""
        if self.level == "gvisor":
            return self.container_pids("victim")[0]
        for instance in (each for provider in self.server.status()["providers"] for each in provider["instances"]):
            for process in find_strays(instance_mark(instance["id"])):
                if b"AWS_LAMBDA_FUNCTION_NAME=victim" in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
                    return process
        raise AssertionError("the victim does not run")

    def container_pids(self, function: str) -> list[int]:
        """What makes the container of a function's environment, by its command line."""
        ids = [environment["id"] for environment in self.server.environments(function)]
        commands = {
            process.pid: " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
        }
        return [pid for pid, command in sorted(commands.items()) if any(each in command for each in ids)]


def test_the_sandbox_works_wherever_bubblewrap_is() -> None:
    """A machine that could have the strongest level must not fall back in silence."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed: `apt install bubblewrap`")
    assert "root directory" in try_level("sandbox")


@pytest.fixture(scope="module", params=get_args(IsolationLevel))
def scene(request: pytest.FixtureRequest, runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    try:
        try_level(request.param)
    except LevelFails as exc:
        pytest.skip(f"level {request.param}: {exc} {exc.advice}")
    data = tmp_path_factory.mktemp(request.param) / "data"
    with running(data, "--isolation", request.param, instance_poll="200ms") as server:
        arn = create_provider(server.aws)
        for name in ("attacker", "victim"):
            variables = {"Environment": {"Variables": {"SECRET": SECRET}}} if name == "victim" else {}
            publish_managed(server.aws, name, EXPLORER, arn, slots=2, Timeout=60, **variables)
        yield Scene(request.param, server)


def runs(scene: Scene, name: str) -> bool:
    """Whether it answers; a replacement that is still starting is refused with 429."""
    with contextlib.suppress(scene.server.aws.exceptions.TooManyRequestsException):
        return bool(invoke(scene.server.aws, name, "found = 1").payload == 1)
    return False


def strong(scene: Scene) -> None:
    if scene.level == "process":
        pytest.skip("the level process does not keep files and processes of the same user apart")


def sandboxed(scene: Scene) -> None:
    if scene.level not in OWN_ROOT:
        pytest.skip(f"the level {scene.level} has no file system or processes of its own")


def test_the_places_are_those_of_aws(scene: Scene) -> None:
    sandboxed(scene)
    found = scene.attack(
        "found = dict(cwd=os.getcwd(), task=os.environ['LAMBDA_TASK_ROOT'], runtime=os.environ['LAMBDA_RUNTIME_DIR'],"
        "code=os.listdir('/var/task'), root=sorted(os.listdir('/')), tmp=os.listdir('/tmp'), uid=os.getuid(),"
        "temp=__import__('tempfile').gettempdir(), home=os.listdir('/root') if os.path.exists('/root') else [])"
    )
    assert (found["cwd"], found["task"], found["runtime"]) == ("/var/task", "/var/task", "/var/runtime")
    assert (found["code"], found["tmp"], found["uid"], found["temp"]) == (["app.py"], [], 993, "/tmp")
    # gVisor mounts a /sys of its own kernel.
    foreign = {"home", "srv", "mnt", "media", "boot", "work"} | ({"sys"} if scene.level != "gvisor" else set())
    assert not foreign & set(found["root"])
    assert set(found["home"]) <= {".pyenv", ".local"}


def test_nothing_of_the_server_and_of_other_functions_can_be_read(scene: Scene) -> None:
    strong(scene)
    data = scene.server.data
    for path in (data, data / "lambstead.db", data / "packages", data / "logs", data / "run", data.parent):
        found = scene.attack(
            f"p = pathlib.Path({str(path)!r})\n"
            "try: found = str(list(p.iterdir()) if p.is_dir() else p.read_bytes()[:9])\nexcept OSError as e: found = type(e).__name__"
        )
        assert found in ("FileNotFoundError", "PermissionError"), (path, found)


def test_nothing_can_be_written_but_tmp(scene: Scene) -> None:
    strong(scene)
    for path in (
        "/var/task/x",
        "/opt/x",
        "/usr/x",
        "/x",
        "/etc/x",
        "/var/x",
        "/dev/x",
        "/dev/shm/x",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        f"{Path.home()}/x",
    ):
        found = scene.attack(
            # Opened and not written: where it succeeds, no harm is done.
            f"try:\n  os.close(os.open({path!r}, os.O_WRONLY | os.O_CREAT)); found = 'open'\nexcept OSError as e: found = type(e).__name__"
        )
        assert found in ("FileNotFoundError", "PermissionError", "OSError"), (path, found)
    root = scene.attack("found = os.environ['LAMBDA_TASK_ROOT']")
    found = scene.attack(
        f"try:\n  open({root + '/app.py'!r}, 'a'); found = 'open'\nexcept OSError as e: found = type(e).__name__"
    )
    assert found in ("PermissionError", "OSError")
    assert scene.attack("import tempfile\nwith tempfile.TemporaryFile() as f: found = f.write(b'fine')") == 4


def test_foreign_processes_cannot_be_read_or_signalled(scene: Scene) -> None:
    strong(scene)
    pid = scene.victim_pid()
    agents = [agent.pid for agent in scene.server.agents()]
    for target in (pid, scene.server.process.pid, *agents, os.getpid()):
        found = scene.attack(
            f"found = []\nfor act in (lambda: os.kill({target}, 0), lambda: os.kill({target}, signal.SIGKILL),\n"
            f"    lambda: open('/proc/{target}/environ', 'rb').read(), lambda: os.readlink('/proc/{target}/exe'),\n"
            f"    lambda: os.listdir('/proc/{target}/root')):\n"
            "  try: found.append(f'done: {act()!r:.99}')\n  except OSError as e: found.append(type(e).__name__)"
        )
        # A sandbox has process ids of its own, so a small number may be one of the attacker's own processes.
        assert set(found) <= {"ProcessLookupError", "FileNotFoundError", "PermissionError"}, (target, found)
    assert scene.victim_serves()
    assert scene.victim_pid() == pid
    secrets = scene.attack(
        "found = ''\nfor p in os.listdir('/proc'):\n"
        "  try: found += open(f'/proc/{p}/environ').read() if p.isdigit() else ''\n  except OSError: pass"
    )
    assert SECRET not in secrets


def test_another_environments_tmp_is_not_there(scene: Scene) -> None:
    strong(scene)
    place = invoke(scene.server.aws, "victim", "import tempfile\nfound = tempfile.mkstemp(prefix='mine-')[1]").payload
    outside = f"/proc/{scene.victim_pid()}/root{place}"
    for path in (place, outside):
        found = scene.attack(f"try: found = open({path!r}).read()\nexcept OSError as e: found = type(e).__name__")
        assert found in ("FileNotFoundError", "PermissionError")
    assert Path(outside).exists() or scene.level not in ("sandbox", "oci")


def test_only_its_own_runtime_api_answers(scene: Scene) -> None:
    """At every level: a connection is served only if its other end belongs to the environment."""
    ping = "urllib.request.urlopen('http://' + {} + '/2018-06-01/ping', timeout=5).status"
    assert scene.attack("found = " + ping.format("os.environ['AWS_LAMBDA_RUNTIME_API']")) == 200
    victims = invoke(scene.server.aws, "victim", "found = os.environ['AWS_LAMBDA_RUNTIME_API']").payload
    found = scene.attack(f"try: found = {ping.format(repr(victims))}\nexcept Exception as e: found = type(e).__name__")
    assert found in ("RemoteDisconnected", "ConnectionResetError", "URLError")
    assert scene.victim_serves()


def test_privileges_cannot_be_had(scene: Scene) -> None:
    status = scene.attack("found = open('/proc/self/status').read()")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields.get("NoNewPrivs") == "1" or scene.level == "gvisor"  # whose kernel does not tell
    assert fields["CapEff"] == fields["CapPrm"] == fields["CapInh"] == "0" * 16
    if scene.level in ("sandbox", "oci"):
        assert fields["CapBnd"] == "0" * 16
        assert fields["Seccomp"] == "2"
        calls = {"unshare": 272, "mount": 165, "ptrace": 101, "bpf": 321, "io_uring_setup": 425, "setns": 308}
        if os.uname().machine == "x86_64":
            found = scene.attack(
                f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfound = []\nfor number in {list(calls.values())}:\n"
                "  ctypes.set_errno(0)\n  found.append((libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno()))"
            )
            assert found == [[-1, 1]] * len(calls)


def test_a_full_tmp_is_an_error_for_the_function_alone(scene: Scene) -> None:
    sandboxed(scene)
    found = scene.attack(
        "n = 0\ntry:\n  with open('/tmp/big', 'wb') as f:\n    while True: n += f.write(bytes(1 << 20))\n"
        "except OSError as e: found = (e.errno, n >> 20)\nfinally: os.unlink('/tmp/big')"
    )
    assert found[0] == 28  # ENOSPC
    assert 510 <= found[1] <= 512
    assert scene.victim_serves()


def test_what_lies_in_tmp_is_not_memory(scene: Scene) -> None:
    """A function with little memory may fill its /tmp."""
    sandboxed(scene)
    create_function(scene.server.aws, "small", EXPLORER, MemorySize=128, Timeout=60)
    wait_active(scene.server.aws, "small", "$LATEST")
    fill = "with open('/tmp/f', 'wb') as f:\n  for _ in range(400): f.write(bytes(1 << 20))\nfound = os.path.getsize('/tmp/f') >> 20"
    assert scene.attack(fill, "small") == 400
    assert scene.attack("time.sleep(1)\nfound = os.path.getsize('/tmp/f') >> 20", "small") == 400


@pytest.mark.parametrize("managed", [False, True])
def test_a_memory_bomb_ends_its_own_environment(scene: Scene, managed: bool) -> None:
    name = f"glutton-{managed}".lower()
    if managed:
        arn = scene.server.aws.list_capacity_providers()["CapacityProviders"][0]["CapacityProviderArn"]
        publish_managed(scene.server.aws, name, EXPLORER, arn, slots=2, Timeout=60)
    else:
        create_function(scene.server.aws, name, EXPLORER, MemorySize=128, Timeout=60)
        wait_active(scene.server.aws, name, "$LATEST")
    answer = invoke(
        scene.server.aws,
        name,
        "hold = []\nwhile True:\n  hold.append(bytearray(os.urandom(1 << 20) * 16))\n  time.sleep(0.001)",
    )
    assert answer.error == "Unhandled"
    assert answer.payload["errorType"] == "Runtime.OutOfMemory"
    assert answer.payload["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert "Runtime.OutOfMemory" in wait_for(lambda: scene.server.logs(name), "a log")
    assert scene.victim_serves()
    wait_for(lambda: runs(scene, name), "it runs again")


def test_a_fork_bomb_is_stopped(scene: Scene) -> None:
    if find_cgroups() is None and scene.level not in OWN_ROOT:
        pytest.skip("without control groups only the sandbox has a limit that the kernel keeps")
    found = scene.attack(
        "n = 0\nchildren = []\ntry:\n  while n < 3000:\n    pid = os.fork()\n    if pid == 0:\n      time.sleep(60)\n      os._exit(0)\n"
        "    children.append(pid)\n    n += 1\nexcept OSError as e: found = (e.errno, n)\n"
        "finally:\n  for pid in children: os.kill(pid, signal.SIGKILL)\n  for pid in children: os.waitpid(pid, 0)"
    )
    if (
        scene.level == "gvisor"
    ):  # Its kernel cannot live without a process of ours that was refused: the environment ends.
        assert isinstance(found, RuntimeError)
    else:
        assert found[0] == 11  # EAGAIN
        assert 900 < found[1] < 1024
    assert scene.victim_serves()
    wait_for(lambda: runs(scene, "attacker"), "it runs again")


def test_too_many_open_files_are_refused(scene: Scene) -> None:
    found = scene.attack("found = resource.getrlimit(resource.RLIMIT_NOFILE)")
    assert found == [4096, 4096]


def test_nothing_is_left_of_a_daemon(scene: Scene) -> None:
    """A child that cleared its variables and left its session ends with the environment all the same."""
    if find_cgroups() is None and scene.level not in OWN_ROOT:
        pytest.skip("without control groups and process namespace such a child is not found")
    aws = scene.server.aws
    create_function(aws, "daemon", EXPLORER)
    wait_active(aws, "daemon", "$LATEST")
    mark = f"31536{os.getpid()}"
    scene.attack(f"subprocess.Popen(['/bin/sleep', '{mark}'], env={{}}, start_new_session=True)", "daemon")
    if scene.level == "gvisor":  # Of its processes there is only the container to be seen.
        container = [psutil.Process(pid) for pid in scene.container_pids("daemon")]
        assert container
        aws.delete_function(FunctionName="daemon")
        wait_for(lambda: not any(process.is_running() for process in container), "the container is gone")
        return

    def sleeping() -> list[str]:
        found = []
        for each in Path("/proc").iterdir():
            if each.name.isdigit():
                try:
                    found += [each.name] if mark.encode() in (each / "cmdline").read_bytes().split(b"\0") else []
                except OSError:
                    continue
        return found

    assert sleeping()
    aws.delete_function(FunctionName="daemon")
    wait_for(lambda: not sleeping(), "the daemon is gone")


def test_status_of_the_scene_is_whole_at_the_end(scene: Scene) -> None:
    assert scene.victim_serves()
    assert json.dumps(scene.server.status())
    assert scene.server.process.poll() is None
