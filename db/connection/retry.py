"""Transient failures, and retrying until they have passed; runs no statement of its own."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Final, TypeVar

import asyncpg

Result = TypeVar("Result")

FIRST_PAUSE: Final = timedelta(milliseconds=50)
"""Before the second try; each pause is twice the one before."""
LONGEST_PAUSE: Final = timedelta(seconds=1)
"""A server that is back is noticed after about this long."""

LOCKED: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
"""Another session has locked a row; only work on that row has to wait."""

TRANSIENT: Final = (
    *LOCKED,
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Failures after which the same idempotent transaction is tried again, on a new connection.

docs/postgresql-facts.md#passing-failures
"""


def passes(error: BaseException) -> bool:
    """Return whether a failure passes by itself, so that the same work may be tried again."""
    # asyncpg's error for an argument that doesn't fit is an InterfaceError, too, but never passes.
    return isinstance(error, TRANSIENT) and not isinstance(error, ValueError)


def pauses() -> Iterator[float]:
    """Yield how many seconds to wait before each next try; with jitter, so that clients spread."""
    pause = FIRST_PAUSE
    while True:
        yield pause.total_seconds() * random.uniform(0.5, 1.5)
        pause = min(2 * pause, LONGEST_PAUSE)


async def persist(work: Callable[[], Awaitable[Result]]) -> Result:
    """Return the work's result, retrying while it fails with a transient error.

    It must be harmless to do twice. The caller limits the time, with `asyncio.timeout`.
    """
    for pause in pauses():
        try:
            return await work()
        except TRANSIENT as error:
            if not passes(error):
                raise
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")
