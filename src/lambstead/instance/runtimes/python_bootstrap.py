"""What a Python environment runs: confine this process, put the paths in AWS's order, then AWS's own interface client.

Run as `<python> -P -S python_bootstrap.py CONFINEMENT CLIENT_DIR LINK LAYERS` by the interpreter of the function, which is not Lambstead's: only the
standard library is imported and nothing of Lambstead can be. `-P` and `-S` keep the script's folder and the interpreter's
site-packages off `sys.path`, so that the function finds what AWS's image has and no more.

In managed-instances mode the client forks one worker per slot from this process. The kernel is told to kill the workers when this process
dies, as it kills this process when the agent dies: nobody is left behind, whoever is killed.
"""

import ctypes
import importlib.util
import json
import os
import site
import sys
import threading
from typing import Any


def main(confinement_json: str, client_dir: str, link_json: str, layers_json: str) -> None:
    confinement = sibling("confinement")
    if confinement_json:  # else a launcher has done it
        confinement.confine(json.loads(confinement_json))
    if "AWS_LAMBDA_MAX_CONCURRENCY" in os.environ:
        workers_die_with_this_process(confinement)
    arrange_paths(os.environ["LAMBDA_TASK_ROOT"], json.loads(layers_json), client_dir)
    restore_builtins()
    # /var/task is read-only on AWS; here the code package must be left as it is.
    sys.dont_write_bytecode = True
    sys.argv = [os.path.join(client_dir, "awslambdaric", "__main__.py"), os.environ["_HANDLER"]]

    link = json.loads(link_json) if link_json else {}
    if "path" in link:
        run_on_link(link)
        return
    if link:
        sibling("python_link").give_events(link["fd"])
    from awslambdaric.__main__ import main as run_client  # type: ignore[import-not-found]  # lives in client_dir, not here

    run_client(sys.argv)


def run_on_link(link: dict[str, str | int]) -> None:
    """The workers of a managed environment: AWS's client with events from the invocation link."""
    module = sibling("python_workers")
    module.run(
        os.environ["_HANDLER"],
        os.environ["AWS_LAMBDA_RUNTIME_API"],
        int(os.environ["AWS_LAMBDA_MAX_CONCURRENCY"]),
        os.environ.get("_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET", ""),
        sibling("python_link"),
        module.LinkArguments(**link),
    )


def sibling(name: str) -> Any:  # Any: a module that only exists here
    """A module beside this one. `-P` keeps our folder off the path, so it is loaded by its file."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"_lambstead_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def workers_die_with_this_process(confinement: Any) -> None:  # Any: see `sibling`
    """Tie every direct child forked by this process's main thread to it.

    Only by that thread: the signal comes when the *thread* that forked ends, so a child of a passing thread would die too early.
    Workers are such children; what a worker forks itself is its own affair.
    """
    libc = ctypes.CDLL(None)
    main_pid = os.getpid()
    forking = {"by_main_thread": False}

    def before() -> None:
        # On Linux the main thread's native id is the process id; in a worker neither equals ours.
        forking["by_main_thread"] = threading.get_native_id() == main_pid

    def after_in_child() -> None:
        if forking["by_main_thread"]:
            confinement.die_with_parent(libc, main_pid)

    os.register_at_fork(before=before, after_in_child=after_in_child)


def arrange_paths(task_root: str, layers: list[str], client_dir: str) -> None:
    """AWS's order: the code package, the layers, what PYTHONPATH says, the client and boto3, the standard library."""
    if sys.path[:1] == [os.path.dirname(os.path.abspath(__file__))]:
        del sys.path[0]  # put there by interpreters that are too old for -P
    sys.path[:0] = [task_root, *layers]
    if client_dir not in sys.path:
        standard_library = next(
            (i for i, path in enumerate(sys.path) if path.startswith(sys.base_prefix)), len(sys.path)
        )
        sys.path.insert(standard_library, client_dir)


def restore_builtins() -> None:
    """`exit`, `quit`, `help` and friends, which `-S` leaves out and functions use."""
    site.setquit()
    site.setcopyright()
    site.sethelper()


if __name__ == "__main__":
    main(*sys.argv[1:5])
