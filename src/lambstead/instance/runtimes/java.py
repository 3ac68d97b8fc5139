"""Java runtimes: which JVM of this machine stands in for `javaN`, and AWS's interface client on it.

Nothing is installed: a JVM comes with the machine, and AWS publishes the client as Maven artifacts only, which the operator puts into the folder
`java-client` of the runtimes directory. A JVM runs classes of its own version and of older ones, so a newer one may stand in, with a note, an older one may not.

The client finds the function as on AWS: classes in the code package, jars in its `lib` and in `java/lib` of the layers. With many invocations at once
it polls from as many threads as there are slots; the handler object is one and the same for all.
"""

import os
import platform
import re
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lambstead.core.runtime_api import Connections
from lambstead.instance.isolation import RUNTIME_DIR
from lambstead.instance.runtimes.discovery import Interpreter, find_javas
from lambstead.instance.runtimes.runtime import Launch, RuntimeNotAvailable, RuntimeProcess, launched

CLIENT_DIR = "java-client"
CLIENT_JARS = (
    "aws-lambda-java-runtime-interface-client",
    "aws-lambda-java-core",
    "aws-lambda-java-serialization",
    "utils-lite",
)
"""Artifacts that the client is made of; the last one is a dependency from the AWS SDK (`software.amazon.awssdk`), for many invocations at once."""
MAIN_CLASS = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda"
NATIVE_PROPERTY = "com.amazonaws.services.lambda.runtime.api.client.runtimeapi.NativeClient.JNI"
NATIVE_LIBRARY = "libaws-lambda-jni.so"
"""The client's compiled half, unpacked from its jar beside the jars."""
HEAP_SHARE = 0.8
"""Part of the function's memory that the heap may take; the JVM itself needs the rest."""
STANDARD_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""What AWS starts functions with that run one invocation at a time (Developer Guide, Java, customizing startup)."""

_ARCHITECTURES = {"aarch64": "aarch_64"}
_IDENTIFIER = re.compile(r"java(\d{1,2})(\.al2|\.al2023)?")


@dataclass(frozen=True, slots=True)
class JavaRuntime:
    """A Java runtime that can be started now."""

    identifier: str
    jvm: Interpreter
    client_dir: Path
    client: str
    note: str = ""

    @property
    def engine(self) -> str:
        return engine_text(self.jvm)

    @property
    def version_text(self) -> str:
        return f"java:{self.jvm.version_text}"

    def process(self, launch: Launch) -> RuntimeProcess:
        """AWS's client in a JVM."""
        places = launch.places
        home = self.jvm.path.parent.parent
        places.show_tree(home)
        client_dir = places.show(self.client_dir, RUNTIME_DIR)
        class_path = [f"{client_dir}/*"]
        if places.layers_dir is not None and not places.own_root:
            class_path.append(f"{places.layers_dir}/java/lib/*")  # the client looks into /opt alone
        flags = (
            *(() if launch.managed else STANDARD_FLAGS),
            f"-Xmx{int(launch.memory_mb * HEAP_SHARE)}m",
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={places.temp_dir}",
            # Else the client unpacks it to one place below /tmp, which environments without a root of their own would share.
            f"-D{NATIVE_PROPERTY}={client_dir / NATIVE_LIBRARY}",
        )
        program = ("-cp", ":".join(class_path), MAIN_CLASS, launch.handler)
        command = launched(places, self.jvm.path, *flags, *program, wrapper=launch.wrapper)
        return RuntimeProcess(
            command=command,
            runtime_dir=client_dir,
            program_dir=self.jvm.path.parent,
            polls=launch.slots if launch.managed else 1,
            connections=Connections.ANONYMOUS,
        )


def engine_text(jvm: Interpreter) -> str:
    """A JVM for people."""
    return f"Java {jvm.version_text}"


def named_major(identifier: str) -> int | None:
    """N of `javaN`, whatever Amazon Linux it names; None if the identifier is not a Java runtime."""
    match = _IDENTIFIER.fullmatch(identifier)
    return int(match[1]) if match else None


def choose(major: int, jvms: Sequence[Interpreter]) -> tuple[Interpreter, str]:
    """The newest JVM of exactly this version, else of the nearest newer one, and a note that says so. Raises RuntimeNotAvailable."""
    usable = [jvm for jvm in jvms if jvm.major >= major]
    if not usable:
        there = f"; the newest one here is {engine_text(max(jvms))}" if jvms else ""
        raise RuntimeNotAvailable(
            f"java{major} needs Java {major} or newer on this machine and none was found{there}. Install a JDK or JRE {major}, "
            "for example from adoptium.net, and set JAVA_HOME or put its java on PATH."
        )
    chosen = min(usable, key=lambda jvm: (jvm.major, *(-part for part in jvm.version)))
    if chosen.major == major:
        return chosen, ""
    return chosen, f"Java {major} is not installed here: java{major} is running on {engine_text(chosen)} instead."


def client_text(runtimes_dir: Path) -> str:
    """The client's name and version, for people. Raises RuntimeNotAvailable naming the jars that are not there, and where they go."""
    folder = runtimes_dir / CLIENT_DIR
    there = sorted(path.name for path in folder.glob("*.jar"))
    versions = {artifact: _version(artifact, there) for artifact in CLIENT_JARS}
    missing = [artifact for artifact, version in versions.items() if version is None]
    if missing:
        raise RuntimeNotAvailable(
            f"AWS's Java interface client is not complete: {', '.join(missing)} missing in {folder}. "
            "Put the jars there; they are on Maven Central, the first three as com.amazonaws, utils-lite as software.amazon.awssdk."
        )
    return f"{CLIENT_JARS[0]} {versions[CLIENT_JARS[0]]}"


def _version(artifact: str, names: Sequence[str]) -> str | None:
    """The version in the name of the artifact's jar; None without a jar. Sources, documentation and jars of other platforms do not count."""
    pattern = re.compile(rf"{re.escape(artifact)}-(\d[\w.]*)(-linux-(x86_64|aarch_64))?\.jar")
    return next((match[1] for name in names if (match := pattern.fullmatch(name))), None)


def ensure(runtimes_dir: Path, identifier: str) -> JavaRuntime:
    """The runtime, if everything is there. May run JVMs that were not seen before. Raises RuntimeNotAvailable."""
    major = named_major(identifier)
    if major is None:
        raise RuntimeNotAvailable(f"{identifier} is not a Java runtime.")
    jvm, note = choose(major, find_javas(runtimes_dir))
    client = client_text(runtimes_dir)
    _unpack_native(runtimes_dir / CLIENT_DIR)
    return JavaRuntime(identifier, jvm, runtimes_dir / CLIENT_DIR, client, note)


def _unpack_native(folder: Path) -> None:
    """Unpack the compiled half for this machine's processor. Raises RuntimeNotAvailable if the client's jar has none, or the folder cannot be written."""
    jar = next(path for path in sorted(folder.glob("*.jar")) if _version(CLIENT_JARS[0], [path.name]))
    place = folder / NATIVE_LIBRARY
    name = f"jni/libaws-lambda-jni.linux-{_ARCHITECTURES.get(platform.machine(), platform.machine())}.so"
    try:
        with zipfile.ZipFile(jar) as opened:
            content = opened.read(name)
        if place.is_file() and place.read_bytes() == content:
            return
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".native-", delete=False) as file:
            file.write(content)
        os.chmod(file.name, 0o755)
        os.replace(file.name, place)
    except (OSError, KeyError, zipfile.BadZipFile) as exc:
        raise RuntimeNotAvailable(f"AWS's Java interface client in {jar} cannot be used here: {exc}") from exc
