"""Runs the demo: a temporary database, the service, the fleet, and an end that leaves nothing behind."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from receiver.demo.operator import Say, open_operator
from receiver.demo.scene import build, play
from receiver.sandbox import open_fleet
from receiver.service.composition import http_app
from receiver.service.lifecycle import running
from receiver.service.server import bind
from receiver.settings import Settings
from receiver.telemetry.logs import configure
from receiver.timings import Timings

SPEED: Final = 20.0
"""How fast time runs: the usual grace of five minutes takes 15 seconds."""
ANYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a listener on all addresses is reached from here."""


async def show(settings: Settings, seconds: float | None, say: Say) -> None:
    """Run the demo until SIGINT or SIGTERM, or for so many seconds; of the settings it heeds where to listen.

    Raises OSError when the port is taken.
    """
    configure(settings.log_format, logging.ERROR)
    stopped = _stopped()
    with bind(settings.host, settings.port) as listener, _folder() as folder:
        chosen = _compressed(settings, listener, folder)
        demo = asyncio.create_task(_run(chosen, listener, say, partial(_set_after, stopped, seconds)))
        end = asyncio.create_task(stopped.wait())
        await asyncio.wait({demo, end}, return_when=asyncio.FIRST_COMPLETED)
        demo.cancel()
        end.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await demo
    say("\nEnded; nothing is left of it.")


async def _run(settings: Settings, listener: socket.socket, say: Say, begun: Callable[[], None]) -> None:
    say("Making a database that lasts as long as the demo ...\n")
    async with (
        running(settings, Timings(recovery_speed=SPEED)) as (app, _),
        _serving(http_app(app), listener),
        open_fleet(speed=SPEED) as fleet,
        open_operator(settings, say) as operator,
    ):
        parts = await build(fleet)
        names = await operator.register(parts, threshold=timedelta(minutes=5) / SPEED)
        say(_where_to_look(settings, names))
        begun()
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(play(fleet, part))
            tasks.create_task(operator.narrate())


@contextmanager
def _folder() -> Iterator[Path]:
    """Yield a folder that is removed at the end; PostgreSQL, which isn't root, may enter it."""
    with tempfile.TemporaryDirectory(prefix="zapwatch-demo-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def _stopped() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set; a second signal cuts nothing short."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _set_after(event: asyncio.Event, seconds: float | None) -> None:
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, event.set)


class _DemoServer(uvicorn.Server):
    """uvicorn's server, which leaves signals alone: the demo ends in another order than the service."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    server = _DemoServer(
        uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=2)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _compressed(settings: Settings, listener: socket.socket, folder: Path) -> Settings:
    return Settings(
        data_dir=folder / "data",
        host=ANYWHERE.get(settings.host, settings.host),
        port=listener.getsockname()[1],
        operator_token=secrets.token_urlsafe(16),
        stale_after=timedelta(seconds=120) / SPEED,
        retry_after=timedelta(seconds=10) / SPEED,
        terminal_grace=timedelta(seconds=15) / SPEED,
        probe_timeout=timedelta(seconds=2),
    )


def _where_to_look(settings: Settings, names: dict[str, str]) -> str:
    base, auth = settings.base_url, f"-H 'Authorization: Bearer {settings.operator_token}'"
    channel, name = next(iter(names.items()))
    return f"""\
Zapwatch watches {len(names)} channels on gateways that misbehave. Nothing here is real.
Time runs {SPEED:.0f} times as fast.

  the API          {base}/docs
  open incidents   curl -s '{base}/incidents?status=open' {auth}
  {name:<16} curl -s {base}/channels/{channel}/state {auth}
  all channels     {_command()} channels --data-dir {settings.data_dir}

The first incident comes within 20 seconds. Ctrl-C ends it.
"""


def _command() -> str:
    """Return how this program was called, so that a printed line works where the demo was started."""
    called = sys.argv[0]
    return called if os.access(called, os.X_OK) else f"{sys.executable} -m receiver"
