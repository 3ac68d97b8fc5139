"""Our own pages under `/_lambstead/`: health, status, logs, doctor, code downloads, reset, faults. JSON unless said otherwise."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lambstead.control.chaos import Chaos
from lambstead.core.log_streams import PROVIDERS_FOLDER
from lambstead.server import chaos as chaos_pages
from lambstead.server.doctor import Check
from lambstead.server.logs import follow, last_lines, log_files

MAX_TAIL = 100_000


class Pages:
    """The pages and what they show. `status` builds the read model, `examine` runs the doctor's checks."""

    def __init__(
        self,
        *,
        profile: str,
        logs: Path,
        packages: Path,
        status: Callable[[], Awaitable[dict[str, object]]],
        examine: Callable[[], list[Check]],
        reset: Callable[[], Awaitable[None]],
        durable: Sequence[Route],
        chaos: Chaos | None,
    ) -> None:
        self._profile = profile
        self._logs = logs
        self._packages = packages
        self._status = status
        self._examine = examine
        self._reset = reset
        self.app = Starlette(
            routes=[
                Route("/_lambstead/health", self._health_page),
                Route("/_lambstead/status", self._status_page),
                Route("/_lambstead/logs/{function}", self._logs_page),
                Route("/_lambstead/provider-logs/{provider}", self._provider_logs_page),
                Route("/_lambstead/doctor", self._doctor_page),
                Route("/_lambstead/code/{name}", self._code_page),
                Route("/_lambstead/reset", self._reset_page, methods=["POST"]),
                *durable,
                *chaos_pages.routes(chaos),
            ]
        )

    async def _health_page(self, request: Request) -> Response:
        return JSONResponse({"status": "ready", "version": version("lambstead"), "profile": self._profile})

    async def _status_page(self, request: Request) -> Response:
        return JSONResponse(await self._status())

    async def _doctor_page(self, request: Request) -> Response:
        checks = await asyncio.to_thread(self._examine)
        return JSONResponse({"checks": [asdict(check) for check in checks]})

    async def _logs_page(self, request: Request) -> Response:
        function = request.path_params["function"]
        version_name = request.query_params.get("qualifier")
        if "/" in function or function.startswith("."):
            return PlainTextResponse(f"{function!r} is not a function name.\n", 400)
        nothing = f"There is no log of {function}{f':{version_name}' if version_name else ''}: no environment of it has run here.\n"
        return await self._lines(request, function, version_name, nothing)

    async def _provider_logs_page(self, request: Request) -> Response:
        provider = request.path_params["provider"]
        nothing = f"There is no log of capacity provider {provider}: no instance of it has been launched here.\n"
        return await self._lines(request, PROVIDERS_FOLDER, provider, nothing)

    async def _lines(self, request: Request, folder: str, version_name: str | None, nothing: str) -> Response:
        """The last lines in a folder, of one version (or provider) if named; those that follow too, if asked for."""
        tail = request.query_params.get("tail", "100")
        if not tail.isdecimal() or int(tail) > MAX_TAIL:
            return PlainTextResponse(f"tail must be a number up to {MAX_TAIL}, not {tail!r}.\n", 400)
        files = await asyncio.to_thread(log_files, self._logs, folder, version_name)
        if request.query_params.get("follow") == "1":
            return StreamingResponse(follow(self._logs, folder, version_name, int(tail)), media_type="text/plain")
        if not files:
            return PlainTextResponse(nothing, 404)
        lines = await asyncio.to_thread(last_lines, files, int(tail))
        return StreamingResponse(_each(lines), media_type="text/plain")

    async def _code_page(self, request: Request) -> Response:
        name = request.path_params["name"]
        digest, _, suffix = name.partition(".")
        path = self._packages / name
        if suffix != "zip" or len(digest) != 64 or not digest.isalnum() or not path.is_file():
            return PlainTextResponse("There is no such code package.\n", 404)
        return FileResponse(path, media_type="application/zip")

    async def _reset_page(self, request: Request) -> Response:
        await self._reset()
        return JSONResponse({"status": "resetting"}, 202)


async def _each(lines: list[bytes]) -> AsyncIterator[bytes]:
    for start in range(0, len(lines), 1000):
        yield b"".join(lines[start : start + 1000])
