"""What is in the root directory of an environment that has one of its own, whatever makes it: this machine's system libraries, AWS's places, nothing else.

Everything is read-only. `/proc`, `/dev` and `/tmp` are not listed: each maker of root directories has its own way to them, between `system` and `own`.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lambstead.instance.isolation import LAYERS_DIR, RUNTIME_DIR, TASK_ROOT, Isolation, Places

USER_ID, GROUP_ID = 993, 990
"""As functions see themselves on AWS (`sbx_user1051`)."""
USER_NAME = "sbx_user1051"
NAMESERVER = "10.0.2.3"
"""Where names are resolved in a network behind address translation (`nat`)."""

_TOP_LEVEL = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_CONFIGURATION = (
    # Host files that programs need; neither accounts nor private keys.
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
_NETWORK_CONFIGURATION = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")
_ACCOUNTS = {
    "/etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\n{USER_NAME}:x:{USER_ID}:{GROUP_ID}::/home/{USER_NAME}:/sbin/nologin\n",
    "/etc/group": f"root:x:0:\n{USER_NAME}:x:{GROUP_ID}:\n",
}
_HOSTS = {"/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n"}
_OWN_NETWORK = {
    "none": {**_HOSTS, "/etc/nsswitch.conf": "hosts: files\n"},
    "nat": {**_HOSTS, "/etc/nsswitch.conf": "hosts: files dns\n", "/etc/resolv.conf": f"nameserver {NAMESERVER}\n"},
}


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of this machine, under a name inside."""

    source: Path
    name: Path


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    name: Path
    to: str


@dataclass(frozen=True, slots=True)
class Text:
    """A file with this content."""

    name: Path
    content: str


@dataclass(frozen=True, slots=True)
class Folder:
    """An empty folder."""

    name: Path


Entry = Bind | Link | Text | Folder


def system(isolation: Isolation) -> Iterator[Entry]:
    """What every environment sees, before anything of its own."""
    yield Bind(Path("/usr"), Path("/usr"))
    for name in _TOP_LEVEL:
        path = Path("/", name)
        if path.is_symlink():
            yield Link(path, os.readlink(path))
        elif path.is_dir():
            yield Bind(path, path)
    yield from _shell()
    own_network = _OWN_NETWORK[isolation.egress] if isolation.own_network else {}
    for name in (*_CONFIGURATION, *(() if isolation.own_network else _NETWORK_CONFIGURATION)):
        if os.path.exists(name):
            yield Bind(Path(name), Path(name))
    for name, content in (_ACCOUNTS | own_network).items():
        yield Text(Path(name), content)


def own(places: Places) -> Iterator[Entry]:
    """What this environment sees."""
    yield Bind(places.code, TASK_ROOT)
    # Each layer's entry on its own, since something else that is shown may have its name below /opt too.
    yield Folder(LAYERS_DIR)
    if places.layers is not None:
        for entry in sorted(places.layers.iterdir()):
            yield Bind(entry, LAYERS_DIR / entry.name)
    for inside, path in places.shown.items():
        yield Bind(path, inside)
    if RUNTIME_DIR not in places.shown:
        yield Folder(RUNTIME_DIR)


def _shell() -> Iterator[Entry]:
    """AWS's `/bin/sh` is Bash, and the bootstrap of its own tutorial asks for `pipefail`. Where ours is dash, Bash takes its place."""
    shell, bash = Path("/bin/sh").resolve(), shutil.which("bash")
    if shell.name == "dash" and bash is not None:
        yield Bind(Path(bash), shell)
