"""What the loads are made against, each in a process of its own: the service, and what it is compared with.

`python -m bench.service WHAT` reads a DSN as a line, prints its port, and ends with its input. All serve
through the same uvicorn, with the same garbage collection.

- `zapwatch`: the service as `zapwatch serve` composes it.
- `apart`: the same, but each event in a transaction of its own, on one of as many connections as are useful.
- `bare`: a Starlette route that parses the same JSON and answers 204, and one that answers a GET.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from subprocess import PIPE
from typing import Final

import orjson
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bench.load import TOKEN
from db.connection.pool import connect_writer, open_pool
from db.connection.types import Pool
from db.ingest.apply import Locked, apply
from db.ingest.entry import Entry
from db.ingest.writer import Writer
from receiver.http.load_shedding import raise_descriptor_limit
from receiver.service.composition import http_app, installation_rules
from receiver.service.lifecycle import running
from receiver.service.server import Server, bind, server_config, tune
from receiver.settings import Settings
from statemachine.model import Rules

NO_TIME: Final = timedelta(minutes=2)
"""How long an event may wait for a transaction of its own: nobody is told to come again."""
WHATS: Final = ("zapwatch", "apart", "bare")
KEY: Final = bytes(32)
LOOPBACK: Final = (ip_network("127.0.0.0/8"),)
"""Where the destinations of tenants are, in a comparison."""
ANSWER: Final = {"id": "2ef12683-3f3a-4748-ac3b-896653d88fb9", "state": "open"}


@dataclass(frozen=True, slots=True)
class Service:
    """A process that serves."""

    port: int
    pid: int

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def memory(self) -> int:
        """Return the bytes that it keeps in memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4096


@asynccontextmanager
async def serving(what: str, dsn: str) -> AsyncIterator[Service]:
    """Yield a process that serves `what`, and end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.service", what, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{dsn}\n".encode())
        yield Service(int(await process.stdout.readline()), process.pid)
    finally:
        process.stdin.close()
        await process.wait()


async def _parse(request: Request) -> Response:
    orjson.loads(await request.body())
    return Response(status_code=204)


async def _answer(_: Request) -> Response:
    return JSONResponse(ANSWER)


BARE: Final = Starlette(
    routes=[
        Route("/webhooks/{provider}/{token}", _parse, methods=["POST"]),
        Route("/channels/{id}/state", _answer, methods=["GET"]),
    ]
)


class Apart(Writer):
    """Commits each submission by itself, on a connection of its own."""

    def __init__(self, pool: Pool, dsn: str, rules: Rules) -> None:
        super().__init__(partial(connect_writer, dsn), rules)
        self._pool, self._rules = pool, rules

    def submit(self, entries: Sequence[Entry], timeout: float | None = None) -> "asyncio.Future[None]":
        """Apply the entries in a transaction of their own."""
        return asyncio.ensure_future(self._commit_one(entries))

    async def _commit_one(self, entries: Sequence[Entry]) -> None:
        async with self._pool.acquire() as connection:
            while True:
                with contextlib.suppress(Locked):
                    await apply(connection, entries, self._rules)
                    return


@asynccontextmanager
async def _app(what: str, dsn: str) -> AsyncIterator[ASGIApp]:
    if what == "bare":
        yield BARE
        return
    settings = Settings(
        database_url=dsn, secret_keys=(KEY,), operator_token=TOKEN.decode(), outgoing_allow=LOOPBACK
    )
    async with running(settings) as (app, _):
        if what == "apart":
            async with await open_pool(dsn, acquire_timeout=NO_TIME) as pool:
                yield http_app(replace(app, writer=Apart(pool, dsn, installation_rules(settings))))
        else:
            yield http_app(app)


async def _serve(what: str) -> None:
    dsn = (await asyncio.to_thread(sys.stdin.readline)).strip()
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        async with _app(what, dsn) as app:
            tune()
            server = Server(server_config(app))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            sys.stdout.write(f"{listener.getsockname()[1]}\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)
            server.should_exit = True
            await task


if __name__ == "__main__":
    raise_descriptor_limit()
    uvloop.run(_serve(sys.argv[1]))
