"""What happens outside, before the program that isolates an environment is started: its network, its descriptors, its death with the agent."""

import os
import sys
from pathlib import Path

from lambstead.instance.isolation import RUNTIME_API_PORT, Confinement, Isolation, Wish

LAUNCHER = Path(__file__).parent / "runtimes" / "launcher.py"


def launched_outside(
    wish: Wish, isolation: Isolation, argv: tuple[str, ...], fds_to_pack: tuple[int, ...] = ()
) -> tuple[str, ...]:
    """The program and its arguments, started by a launcher that first makes a network if there is to be one, and stops at the gate for that.

    The program is killed when the agent dies.
    """
    confinement = Confinement(
        gate_fd=wish.gate_fd if isolation.gate_outside else -1,
        listen_port=RUNTIME_API_PORT if isolation.new_network_outside else 0,
        die_with_pid=os.getpid(),
        open_files=0,
        no_new_privileges=False,
        keeps_gate=isolation.passes_descriptors,
        new_network=isolation.new_network_outside,
        fds_to_pack=fds_to_pack,
    )
    return (sys.executable, "-I", "-S", str(LAUNCHER), confinement.as_argument(), *argv)
