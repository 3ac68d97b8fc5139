"""Confine this process, then become the program that was asked for: for runtimes that cannot do it to themselves.

Run as `<python> -I -S launcher.py CONFINEMENT PROGRAM ARGUMENT…`. Only the standard library is imported. What is set here outlives `exec`: the
signal at the parent's death, no new privileges, the limits, what Landlock took away.
"""

import importlib.util
import json
import os
import signal
import sys

CANNOT_EXECUTE = 126
"""As shells exit when a program cannot be executed."""


def main(confinement_json: str, argv: list[str]) -> None:
    confine(confinement_json)
    # Python ignores these for itself; what it becomes would inherit that.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    forget_own_locale()
    try:
        os.execv(argv[0], argv)
    except OSError as exc:
        os.write(2, f"{argv[0]} could not be executed: {exc.strerror}\n".encode())
        os._exit(CANNOT_EXECUTE)


def forget_own_locale() -> None:
    """Take back the variable that Python sets at its start where the locale of LANG is missing (PEP 538)."""
    with open("/proc/self/environ", "rb") as file:  # as it was before
        if not any(variable.startswith(b"LC_CTYPE=") for variable in file.read().split(b"\0")):
            os.environ.pop("LC_CTYPE", None)


def confine(confinement_json: str) -> None:
    """`-I` keeps our folder off the path, so the module is loaded by its file."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "confinement.py")
    spec = importlib.util.spec_from_file_location("_lambstead_confinement", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.confine(json.loads(confinement_json))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
