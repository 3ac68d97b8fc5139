"""X-Ray trace headers: `Root=1-<epoch hex>-<96 bit hex>;Parent=<64 bit hex>;Sampled=0`."""

import re
from datetime import datetime

_HEADER = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}(;[A-Za-z]{1,32}=[^;\s]{1,128}){0,8}")


def is_trace_header(text: str) -> bool:
    """True for a well-formed header with a root."""
    return _HEADER.fullmatch(text) is not None


def trace_header(given: str, now: datetime, seed: str) -> str:
    """The caller's trace header if it is one, else a new unsampled one; `seed` is a fresh UUID."""
    if is_trace_header(given):
        return given
    digits = seed.replace("-", "")
    return f"Root=1-{int(now.timestamp()):08x}-{digits[:24]};Parent={digits[16:32]};Sampled=0"
