"""Moto in this process: AWS's other services, imported when first needed.

Importing takes a second and 50 MB, the first call of EC2 some seconds and 130 MB more, so both happen in a thread. A request goes through Moto's
WSGI application as it came; several may run at a time.
"""

import asyncio
import importlib.util
import io
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote_to_bytes

from lambstead.companion.requests import ForeignRequest
from lambstead.wire.gateway import HttpResponse

log = logging.getLogger(__name__)

MAX_AT_ONCE = 4
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]  # Any: PEP 3333


def is_installed() -> bool:
    """Whether the extra `lambstead[companion]` is there; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "flask", "flask_cors"))


class MotoServices:
    """See the module. `account_id` owns everything."""

    def __init__(self, account_id: str) -> None:
        self._account_id = account_id
        self._threads = ThreadPoolExecutor(MAX_AT_ONCE, thread_name_prefix="companion")
        self._lock = threading.Lock()
        self._app: Wsgi | None = None

    async def answer(self, request: ForeignRequest) -> HttpResponse:
        """Moto's answer. Raises whatever Moto lets through."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, request)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, request: ForeignRequest) -> HttpResponse:
        began: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
            began.append((status, headers))

        parts = self._loaded()(_environ(request), start_response)
        try:
            body = b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        status, headers = began[-1]
        kept = [
            (name, value) for name, value in headers if name.lower() not in ("content-length", "connection", "date")
        ]
        if request.method == "HEAD":
            # The length of what a GET would give is the answer here.
            kept += [(name, value) for name, value in headers if name.lower() == "content-length"]
        return HttpResponse(int(status.split()[0]), kept, body)

    def _loaded(self) -> Wsgi:
        with self._lock:
            if self._app is None:
                # Moto reads these when it is imported and when it first needs them.
                os.environ.setdefault("MOTO_ACCOUNT_ID", self._account_id)
                os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
                from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

                logging.getLogger("werkzeug").setLevel(logging.WARNING)
                self._app = DomainDispatcherApplication(create_backend_app)
                log.info("companion-loaded")
            return self._app


def _environ(request: ForeignRequest) -> dict[str, Any]:  # Any: PEP 3333
    host, _, port = request.headers.get("host", "127.0.0.1").rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.raw_path).decode("latin-1"),
        "RAW_URI": request.target,
        "REQUEST_URI": request.target,
        "QUERY_STRING": request.query_string.decode("latin-1"),
        "SERVER_NAME": host or "127.0.0.1",
        "SERVER_PORT": port if port.isdecimal() else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        # The body is whole, however it came.
        "wsgi.input_terminated": True,
    }
    for name, value in request.headers.items():
        if name == "content-type":
            environ["CONTENT_TYPE"] = value
        elif name not in ("content-length", "transfer-encoding", "expect"):
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ
