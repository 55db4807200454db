"""What all actors share: compressed time, seeded chance, and tasks that end with the fleet."""

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any


class Stage:
    """Time runs `speed` times as fast here; one seed makes chance repeat."""

    def __init__(self, speed: float, seed: int) -> None:
        self.speed = speed
        self.random = Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    async def pause(self, seconds: float) -> None:
        """Sleep for this many of the sandbox's seconds."""
        await asyncio.sleep(seconds / self.speed)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the fleet at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def end(self) -> None:
        """End all tasks and raise what the first of them failed with."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._failures:
            raise self._failures[0]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)
