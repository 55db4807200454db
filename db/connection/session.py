"""A connection that is terminated when a statement on it is abandoned; knows no statement and no host.

asyncpg's own way is to have the server cancel the statement, by a second connection, and to use the first one
again. On a server that hangs both take for ever. And a COMMIT that waits for its standby is not undone by a
cancellation but done, on this server alone: docs/postgresql-facts.md#giving-up.
"""

import asyncio
from typing import TYPE_CHECKING

import asyncpg
from asyncpg.transaction import Transaction as AsyncpgTransaction

if TYPE_CHECKING:
    from asyncpg.transaction import _IsolationLevels

    class Base(asyncpg.Connection[asyncpg.Record]):
        def _check_open(self) -> None: ...  # the stubs leave it out
else:
    Base = asyncpg.Connection


class Session(Base):
    """A connection that is terminated when a statement times out or its caller is cancelled."""

    __slots__ = ()

    def _cancel_current_command(self, *_waiters: object) -> None:
        # asyncpg calls this, and in no other case. It still touches the connection when this returns.
        asyncio.get_running_loop().call_soon(self.terminate)

    def transaction(
        self,
        *,
        isolation: "_IsolationLevels | None" = None,
        readonly: bool = False,
        deferrable: bool = False,
    ) -> "Transaction":
        """Return a transaction, to be entered with `async with`."""
        self._check_open()
        return Transaction(self, isolation, readonly, deferrable)


class Transaction(AsyncpgTransaction):
    """A transaction whose failed ROLLBACK never hides why it was to be rolled back."""

    __slots__ = ()
    _connection: Session

    async def __aexit__(self, extype: object, ex: object, tb: object) -> None:
        try:
            await super().__aexit__(extype, ex, tb)
        except Exception:
            if ex is None:
                raise
            # Above all not a cancellation: a loop that missed it would never end.
            self._connection.terminate()
