"""What the benchmarks start does start, and answers."""

import urllib.request
from pathlib import Path

import pytest
from bench.contenders import lambstead_with


@pytest.mark.parametrize(("client", "functions"), [("link", 4), ("official", 2)])
def test_every_function_that_is_measured_answers(
    runtimes: Path, client: str, functions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMBSTEAD_RUNTIMES_DIR", str(runtimes))
    with lambstead_with(client) as contenders:
        assert len(contenders) == functions
        for contender in contenders:
            headers = dict(header.split(": ", 1) for header in contender.headers)
            request = urllib.request.Request(contender.url, b"{}", headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.headers["X-Amz-Function-Error"] is None, contender.name
