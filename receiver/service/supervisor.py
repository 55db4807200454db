"""Keeps the serving processes alive: starts them on one socket, starts the dead again, stops all in order.

It serves nothing itself. Workers differ by their number only: each runs every loop, and claims share
the work.
"""

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from prometheus_client.multiprocess import mark_process_dead

from receiver.service.lifecycle import DRAIN
from receiver.settings import Settings

ENDED_WITHIN: Final = DRAIN - timedelta(seconds=1)
"""How long a worker may drain; then it is killed."""
FIRST_PAUSE: Final = timedelta(seconds=0.1)
"""Before a worker that died is started again; doubled each time."""
LONGEST_PAUSE: Final = timedelta(seconds=5)
STEADY: Final = timedelta(seconds=10)
"""A worker that lived this long has not died at once."""
GIVE_UP_AFTER: Final = 5
"""How many times in a row a worker may fail at once before the service ends."""
IN_MEMORY: Final = Path("/dev/shm")

log = logging.getLogger(__name__)


class WorkerFails(Exception):
    """A worker fails at once, again and again."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker gets: settings on a foundation, its number, the socket and the folder of metrics."""

    settings: Settings
    number: int
    listener: int
    shared: Path


async def supervise(settings: Settings, listener: socket.socket) -> None:
    """Keep the workers alive until SIGINT or SIGTERM, then have all of them drain."""
    # In memory: writing to a file's mapping can wait for a disk that PostgreSQL keeps busy.
    folder = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="zapwatch-metrics-", dir=folder) as shared,
        _signal() as signalled,
    ):
        async with asyncio.TaskGroup() as tasks:
            workers = [
                tasks.create_task(_keep(WorkerSpec(settings, number, listener.fileno(), Path(shared))))
                for number in range(1, settings.workers + 1)
            ]
            await signalled.wait()
            for worker in workers:
                worker.cancel()


@contextmanager
def _signal() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set."""
    signalled, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled.set)
    try:
        yield signalled
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _keep(work: WorkerSpec) -> None:
    """Run a worker, and restart it when it ends; raise `WorkerFails` when it keeps failing at once."""
    now = asyncio.get_running_loop().time
    failures, pause = 0, FIRST_PAUSE
    while True:
        began = now()
        code, served = await _run(work)
        mark_process_dead(work.number, str(work.shared))
        if now() - began >= STEADY.total_seconds():
            failures, pause = 0, FIRST_PAUSE
        # A worker killed from outside while it serves has not failed.
        failures = failures + 1 if code > 0 or not served else 0
        if failures >= GIVE_UP_AFTER:
            raise WorkerFails(
                f"worker {work.number} ended at once {failures} times, the last time with {code}"
            )
        log.critical(
            "worker %d ended with %d; it is started again in %.1f s", work.number, code, pause.total_seconds()
        )
        await asyncio.sleep(pause.total_seconds())
        pause = min(2 * pause, LONGEST_PAUSE)


async def _run(work: WorkerSpec) -> tuple[int, bool]:
    """Run one process to its end; return its exit code and whether it ever served."""
    # Its stdin stays open as long as the supervisor lives, so that a worker notices its death.
    # In a session of its own, so that Ctrl-C reaches it through us only. It imports what we do, and nothing
    # that happens to lie in the current folder (-P).
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "receiver.service.worker",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=PIPE, stdout=PIPE, pass_fds=(work.listener,), start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(pickle.dumps(work))
            await process.stdin.drain()
        served = bool(await process.stdout.readline())
        if served:
            log.info("worker %d serves as process %d", work.number, process.pid)
        return await process.wait(), served
    finally:
        await _stop(process)


async def _stop(process: Process) -> None:
    """Have a process drain, and kill it when it takes too long."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(ENDED_WITHIN.total_seconds()):
            await process.wait()
    except TimeoutError:
        log.error("process %d did not end in time and is killed", process.pid)
        process.kill()
        await process.wait()
