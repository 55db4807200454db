"""Small questions are asked together, and nobody suffers for another."""

import asyncio
from collections.abc import Sequence

import pytest

from db.connection.dataloader import TOGETHER, DataLoader
from tests.support.eventually import let_tasks_run


class Library:
    """Answers a word with its length, knows no empty one, and tells how it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.opened = asyncio.Event()
        self.opened.set()
        self.burns = False
        self.lookups = DataLoader(self._ask)

    async def _ask(self, words: Sequence[str]) -> dict[str, int]:
        self.asked.append(list(words))
        await self.opened.wait()
        if self.burns:
            raise OSError("it burns")
        return {word: len(word) for word in words if word}


async def test_what_is_asked_while_a_statement_runs_is_asked_together() -> None:
    library = Library()
    library.opened.clear()
    first = asyncio.ensure_future(library.lookups.find("a"))
    await let_tasks_run(2)
    others = [asyncio.ensure_future(library.lookups.find(word)) for word in ("bb", "ccc", "bb", "")]
    await let_tasks_run()

    library.opened.set()

    assert await asyncio.gather(first, *others) == [1, 2, 3, 2, None]
    assert library.asked == [["a"], ["bb", "ccc", ""]]


async def test_very_many_questions_are_parted() -> None:
    library = Library()

    await asyncio.gather(*(library.lookups.find(str(number)) for number in range(TOGETHER + 1)))

    assert [len(words) for words in library.asked] == [TOGETHER, 1]


async def test_failure_is_told_to_all_who_asked_and_the_next_question_is_asked_anew() -> None:
    library = Library()
    library.burns = True

    failed = await asyncio.gather(*map(library.lookups.find, ("a", "bb")), return_exceptions=True)
    library.burns = False

    assert [type(outcome) for outcome in failed] == [OSError, OSError]
    assert await library.lookups.find("a") == 1


async def test_one_who_goes_away_takes_no_other_along() -> None:
    library = Library()
    library.opened.clear()
    leaves, stays = (asyncio.ensure_future(library.lookups.find("a")) for _ in range(2))
    await let_tasks_run()

    leaves.cancel()
    library.opened.set()

    assert await stays == 1
    with pytest.raises(asyncio.CancelledError):
        await leaves


async def test_answers_are_not_remembered() -> None:
    library = Library()

    for _ in range(2):
        await library.lookups.find("a")

    assert library.asked == [["a"], ["a"]]
