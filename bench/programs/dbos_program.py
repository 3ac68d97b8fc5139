"""The workflows on DBOS: `dbos_program.py URL ten|wait CALLERS SECONDS`. Runs with the peers' interpreter, not with ours."""

import sys

from dbos import DBOS
from turns import take_turns


@DBOS.step()
def step(number: int) -> int:
    return number


@DBOS.workflow()
def ten() -> int:
    """Ten steps."""
    return sum(step(number) for number in range(10))


@DBOS.workflow()
def wait() -> int:
    """Step, wait 1 s, step."""
    first = step(1)
    DBOS.sleep(1)
    return first + step(1)


if __name__ == "__main__":
    url, name, callers, seconds = sys.argv[1:]
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})
    DBOS.launch()
    take_turns({"ten": ten, "wait": wait}[name], int(callers), float(seconds))
    DBOS.destroy()
