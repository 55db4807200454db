"""Waiting in tests: for a condition that nothing signals, and for tasks that are ready to run."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar, cast, overload

Answer = TypeVar("Answer")

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.05
"""Seconds. Pauses grow, so that what is quick is seen at once and what is slow isn't asked too often."""


@overload
async def eventually(
    ask: Callable[[], Awaitable[Answer]], holds: Callable[[Answer], object] = bool, within: float = 30
) -> Answer: ...
@overload
async def eventually(
    ask: Callable[[], Answer], holds: Callable[[Answer], object] = bool, within: float = 30
) -> Answer: ...
async def eventually(
    ask: Callable[[], object], holds: Callable[[Answer], object] = bool, within: float = 30
) -> Answer:
    """Ask until the answer holds, and return it; raise TimeoutError after so many seconds."""
    answer: object = "none"
    pause = FIRST_PAUSE
    try:
        async with asyncio.timeout(within):
            while True:
                asked = ask()
                answer = await asked if isawaitable(asked) else asked
                if holds(cast(Answer, answer)):
                    return cast(Answer, answer)
                await asyncio.sleep(pause)  # for what sets no event: other processes, rows, counts
                pause = min(1.5 * pause, LONGEST_PAUSE)
    except TimeoutError as error:
        error.add_note(f"The last answer was {answer!r}.")
        raise


async def let_tasks_run(rounds: int = 1) -> None:
    """Let every task that is ready run as far as it gets, so many times."""
    for _ in range(rounds):
        await asyncio.sleep(0)  # no condition tells how far a task got
