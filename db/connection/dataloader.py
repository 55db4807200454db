"""Answers many small questions with few statements: what is asked while one runs, the next asks together.

Caches nothing and decides nothing. When a statement fails, all that it was to answer fail with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

TOGETHER: Final = 500
"""Questions in one statement at the most."""


class DataLoader(Generic[Key, Answer]):
    """Questions of one kind; `ask` answers several, and leaves out those that have no answer."""

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
        # Somebody else may wait for the same: a caller that goes away takes only itself.
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
                future.exception()  # it may be that nobody waits any more
            return
        for key, future in asked.items():
            future.set_result(answers.get(key))
