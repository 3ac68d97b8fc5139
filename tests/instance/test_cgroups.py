"""Control groups of this machine, where they can be made."""

import os
import subprocess
import sys
import time

import pytest
from tests.harness import wait_for

from lambstead.instance.cgroups import find_cgroups

BURN = "while True: pass"


def test_a_group_is_held_to_its_share_of_a_core() -> None:
    cgroups = find_cgroups()
    if cgroups is None:
        pytest.skip("no control groups can be made here")
    group = cgroups.group(f"lambstead-test-{os.getpid()}")
    try:
        group.hold_to(0.05)
        began = time.monotonic()
        with subprocess.Popen([sys.executable, "-c", BURN]) as busy:
            group.add(busy.pid)
            before = group.usage().cpu_seconds
            used = wait_for(lambda: (u := group.usage().cpu_seconds - before) >= 0.1 and u, "it gets what it may have")
            elapsed = time.monotonic() - began
            busy.kill()
        # What it may have in the time that passed, in the period that began, and in what every processor had been handed before.
        assert used <= 0.05 * (elapsed + 0.1) + 0.02 * (os.cpu_count() or 1)
    finally:
        group.remove()
