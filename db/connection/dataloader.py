"""Combines many small look-ups into few statements: keys that arrive while one runs go into the next.

Caches nothing and decides nothing. When a statement fails, all its look-ups fail with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

TOGETHER: Final = 500
"""Keys in one statement at the most."""


class DataLoader(Generic[Key, Answer]):
    """Look-ups of one kind; `ask` answers several keys, and leaves out those that have no answer."""

    def __init__(self, ask: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Answer]]]) -> None:
        self._ask = ask
        self._waiting: dict[Key, asyncio.Future[Answer | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key: Key) -> Answer | None:
        """Return the answer, or None when there is none; raises what the statement raised."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._asking is None:
                self._asking = asyncio.create_task(self._answer_all())
        # Other callers may wait for the same key: the cancellation of one must not reach them.
        return await asyncio.shield(future)

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                keys = list(islice(self._waiting, TOGETHER))
                asked = {key: self._waiting.pop(key) for key in keys}
                await self._answer(asked)
        finally:
            self._asking = None

    async def _answer(self, asked: Mapping[Key, asyncio.Future[Answer | None]]) -> None:
        try:
            answers = await self._ask(list(asked))
        except Exception as error:
            for future in asked.values():
                future.set_exception(error)
                future.exception()  # marked as retrieved: all callers may have been cancelled
            return
        for key, future in asked.items():
            future.set_result(answers.get(key))
