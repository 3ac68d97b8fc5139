"""Loops of functions that invoke each other, found by the lineage that travels in trace headers.

AWS counts in the trace header how often a chain of invocations came to each function, and stops it at about sixteen (Developer Guide, recursive loop
detection). SDKs inside functions pass the header on by themselves. We write the count of each function of the chain as `<hash>:<count>`, joined
by `|`, into the header's `Lineage` field; a chain with more functions than fit forgets its oldest.
"""

import hashlib
import re
from dataclasses import dataclass

MAX_LOOPS = 16
"""How often one chain of invocations may come to the same function."""
MAX_COUNT = 999
"""Where counting ends, for functions that are allowed to loop."""
MAX_FUNCTIONS = 9
"""Functions of a chain that are counted; more would not fit into a field of a trace header (128 characters)."""

_FIELD = re.compile(r";Lineage=([^;]*)")
_ENTRY = re.compile(r"([0-9a-f]{8}):(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Step:
    """One arrival of a chain at a function."""

    trace_header: str
    """With this arrival counted."""
    arrivals: int
    """How often the chain has come to the function, this time included."""

    @property
    def is_loop(self) -> bool:
        return self.arrivals > MAX_LOOPS


def arrive(trace_header: str, function_arn: str) -> Step:
    """Count the arrival at the function with this unqualified ARN. A lineage that cannot be read starts anew."""
    found = _FIELD.search(trace_header)
    counts = {match[1]: int(match[2]) for match in _ENTRY.finditer(found[1])} if found else {}
    mine = hashlib.sha256(function_arn.encode()).hexdigest()[:8]
    arrivals = min(counts.pop(mine, 0) + 1, MAX_COUNT)
    kept = [*counts.items(), (mine, arrivals)][-MAX_FUNCTIONS:]
    lineage = "|".join(f"{name}:{count}" for name, count in kept)
    return Step(f"{_FIELD.sub('', trace_header)};Lineage={lineage}", arrivals)
