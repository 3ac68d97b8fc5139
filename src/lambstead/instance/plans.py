"""From the wish to run a runtime to the process to start, at whatever level."""

from lambstead.instance import bubblewrap, containers
from lambstead.instance.isolation import Isolation, Places, ProcessPlan, Wish, plan_process


def plan_for(wish: Wish, places: Places, isolation: Isolation) -> ProcessPlan:
    """The plan. Raises FileNotFoundError if the level's program is not installed, OSError if its files cannot be written."""
    match isolation.level:
        case "sandbox":
            program = bubblewrap.find_program()
            if program is None:
                raise FileNotFoundError("bubblewrap (bwrap) is not on PATH any more")
            return bubblewrap.plan_sandbox(wish, places, isolation, program)
        case "oci" | "gvisor":
            program = containers.find_program(isolation.level)
            if program is None:
                raise FileNotFoundError(f"{' or '.join(containers.PROGRAMS[isolation.level])} is not on PATH any more")
            return containers.plan_container(wish, places, isolation, program)
        case "landlock" | "process":
            return plan_process(wish, places, isolation)
