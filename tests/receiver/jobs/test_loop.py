"""Background loops: nothing that a round fails with ends one, unless it is critical."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from io import StringIO
from typing import Any

import asyncpg
import pytest
from asyncpg.exceptions import _base
from prometheus_client import CollectorRegistry, Gauge

from db.connection.types import Connection
from receiver.jobs.loop import Backoff, Failing, Failure, ItemFailed, Loop, LoopRunner, LoopTiming
from tests.factories import Evolution
from tests.receiver.test_secrets import lines  # noqa: F401
from tests.support.service import zapwatch

PHONE = "+5511999990000"
NOW = timedelta(0)
QUICK = LoopTiming(backoff=Backoff(timedelta(milliseconds=1), timedelta(milliseconds=2)))
AT_ONCE = QUICK._replace(failing_after=NOW, reported_every=NOW)


@dataclass
class Work:
    """Rounds that fail with these errors, one after the other, and are good afterwards."""

    errors: list[Exception]
    more: int = 0
    """Good rounds after which another one is due at once."""
    rounds: int = 0
    stopped: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def round(self) -> bool:
        self.rounds += 1
        if self.errors:
            raise self.errors.pop(0)
        self.more -= 1
        if self.more < 0:
            self.done.set()
        return self.more >= 0

    async def stop(self) -> None:
        self.stopped += 1

    def loop(self, pause: timedelta = NOW, *, critical: bool = False) -> Loop:
        return Loop("versions", self.round, pause, self.stop, critical=critical)


@asynccontextmanager
async def running(runner: LoopRunner, loop: Loop) -> AsyncIterator["asyncio.Task[Any]"]:
    task = asyncio.create_task(runner.run(loop))
    try:
        async with asyncio.timeout(10):
            yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def failures_of(errors: Iterable[Exception]) -> list[tuple[str, Failure]]:
    """Return what the runner tells of rounds that fail so."""
    told: list[tuple[str, Failure]] = []
    work = Work(list(errors))
    async with running(LoopRunner(lambda *it: told.append(it), timing=QUICK), work.loop()):
        await work.done.wait()
    return told


async def test_unforeseen_error_is_logged_without_its_value_counted_and_tried_again(
    lines: StringIO,  # noqa: F811
) -> None:
    told = await failures_of([KeyError(PHONE), KeyError(PHONE)])

    assert told == 2 * [("versions", Failure.UNFORESEEN)]
    assert lines.getvalue().count("a round of loop versions failed") == 2
    assert lines.getvalue().count(", in Work.round\n    raise self.errors.pop(0)\nKeyError\n") == 2
    assert PHONE not in lines.getvalue()


async def test_statement_that_is_refused_is_logged_with_its_frames(lines: StringIO) -> None:  # noqa: F811
    told = await failures_of([asyncpg.CheckViolationError(PHONE)])

    assert told == [("versions", Failure.REFUSED)]
    assert "the database refuses a statement of loop versions" in lines.getvalue()
    assert ", in Work.round" in lines.getvalue()
    assert lines.getvalue().rstrip().endswith("CheckViolationError")
    assert PHONE not in lines.getvalue()


async def test_database_that_is_away_is_a_warning(lines: StringIO) -> None:  # noqa: F811
    told = await failures_of([ConnectionRefusedError(), asyncpg.DeadlockDetectedError(), TimeoutError()])

    assert told == 3 * [("versions", Failure.TRANSIENT)]
    assert lines.getvalue().count("WARNING") == 1
    assert "Traceback" not in lines.getvalue()


async def test_argument_that_no_statement_takes_is_no_database_that_is_away(
    connection: Connection,
    lines: StringIO,  # noqa: F811
) -> None:
    with pytest.raises(asyncpg.DataError) as wrong:
        await connection.execute("select $1::int", PHONE)

    told = await failures_of([wrong.value, _base.DataError(f"invalid input for query argument $1: {PHONE}")])

    assert [failure for _, failure in told] == [Failure.REFUSED, Failure.UNFORESEEN]
    assert PHONE not in lines.getvalue()


def test_pauses_grow_and_are_capped() -> None:
    pauses = [Backoff().pause(failures).total_seconds() for failures in (1, 2, 3, 7, 10_000)]

    assert pauses == [1, 2, 4, 60, 60]


def test_faster_loops_pause_less_but_not_without_end() -> None:
    usual = [timedelta(seconds=seconds) for seconds in (30, 1, 0.25, 0.05, 0)]

    assert [LoopTiming(speed=10).pause(pause).total_seconds() for pause in usual] == [3, 0.2, 0.2, 0.05, 0]
    assert [LoopTiming().pause(pause) for pause in usual] == usual


async def test_round_that_is_due_at_once_waits_for_no_pause() -> None:
    work = Work([], more=3)

    async with running(LoopRunner(), work.loop(timedelta(hours=1))):
        await work.done.wait()

    assert work.rounds == 4


async def test_critical_loop_waits_for_the_database_and_raises_everything_else() -> None:
    work = Work([ConnectionRefusedError(), KeyError(PHONE)])

    async with running(LoopRunner(), work.loop(critical=True)) as task:
        with pytest.raises(KeyError):
            await task

    assert (work.rounds, work.stopped) == (2, 1)


async def test_loop_that_is_cancelled_gives_back_what_it_holds() -> None:
    work = Work([])

    async with running(LoopRunner(), work.loop(timedelta(hours=1))):
        await work.done.wait()

    assert work.stopped == 1


async def test_loop_is_failing_after_a_while_without_a_good_round_and_no_longer_after_one() -> None:
    reports: list[tuple[str, Failing | None]] = []
    now, withdrawn = 0.0, asyncio.Event()

    async def report(name: str, failing: Failing | None) -> None:
        reports.append((name, failing))
        if failing is None:
            withdrawn.set()

    work, failing = Work([]), []

    async def fail() -> bool:
        nonlocal now
        failing.append(runner.failing)
        now += 100
        if now > 400:
            return await work.round()
        raise KeyError(PHONE)

    runner = LoopRunner(report=report, timing=QUICK, clock=lambda: now)
    async with running(runner, Loop("versions", fail, timedelta(milliseconds=1))):
        await withdrawn.wait()

    assert failing[:5] == [[], [], [], [], ["versions"]]
    assert runner.failing == []
    (name, first), last = reports
    assert (name, first and first.error) == ("versions", "KeyError")
    assert last == ("versions", None)


async def test_loop_stays_failing_while_there_is_nothing_to_do_until_a_failed_item_would_be_due_again() -> (
    None
):
    now, failing = 0.0, list[list[str]]()
    over = asyncio.Event()

    async def round() -> bool | None:
        nonlocal now
        failing.append(runner.failing)
        now += 100
        if len(failing) == 1:
            raise ItemFailed from KeyError(PHONE)
        if len(failing) == 9:
            over.set()
        return None

    timing = QUICK._replace(retried_within=timedelta(seconds=550))
    runner = LoopRunner(timing=timing, clock=lambda: now)
    async with running(runner, Loop("versions", round, timedelta(milliseconds=1))):
        await over.wait()

    assert failing == [[], [], [], [], ["versions"], ["versions"], ["versions"], [], []]


async def test_wait_for_something_that_does_not_say_what_it_is_shows_frames_and_no_value(
    lines: StringIO,  # noqa: F811
) -> None:
    told = await failures_of([OSError(PHONE)])

    assert told == [("versions", Failure.TRANSIENT)]
    assert "loop versions waits for the database: OSError" in lines.getvalue()
    assert ", in Work.round" in lines.getvalue()
    assert PHONE not in lines.getvalue()


async def test_something_cancelled_inside_a_round_is_a_failure_and_ends_no_loop() -> None:
    told, work = list[tuple[str, Failure]](), Work([])

    async def round() -> bool | None:
        if told:
            return await work.round()
        inside = asyncio.get_running_loop().create_future()
        inside.cancel()
        await inside
        return False

    runner = LoopRunner(lambda *it: told.append(it), timing=QUICK)
    async with running(runner, Loop("versions", round, timedelta(milliseconds=1))):
        await work.done.wait()

    assert told == [("versions", Failure.UNFORESEEN)]


async def test_what_a_loop_can_not_give_back_keeps_it_from_nothing_else() -> None:
    reports, work = list[object](), Work([KeyError(PHONE)])

    async def report(name: str, failing: Failing | None) -> None:
        reports.append(failing)

    async def stop() -> None:
        raise asyncpg.UndefinedColumnError(PHONE)

    loop = Loop("versions", work.round, timedelta(milliseconds=1), stop)
    async with running(LoopRunner(report=report, timing=AT_ONCE), loop) as task:
        await work.done.wait()

    assert task.cancelled()
    assert reports[-1] is None


async def test_item_that_fails_is_counted_by_its_own_error_and_backs_nothing_off() -> None:
    told, pauses = list[tuple[str, Failure]](), timedelta(hours=1)
    done = asyncio.Event()

    async def round() -> bool | None:
        if len(told) == 3:
            done.set()
            return False
        raise ItemFailed from asyncpg.CheckViolationError(PHONE)

    runner = LoopRunner(lambda *it: told.append(it), timing=LoopTiming(backoff=Backoff(pauses, pauses)))
    async with running(runner, Loop("versions", round, timedelta(milliseconds=1))):
        await done.wait()

    assert told == 3 * [("versions", Failure.REFUSED)]


async def test_report_that_fails_ends_no_loop_and_is_made_again(lines: StringIO) -> None:  # noqa: F811
    work = Work([KeyError(PHONE), KeyError(PHONE)])
    refused = [asyncpg.CheckViolationError(PHONE), KeyError(PHONE)]
    taken: list[str] = []
    is_taken = asyncio.Event()

    async def report(name: str, failing: Failing | None) -> None:
        if refused:
            raise refused.pop()
        taken.append("good" if failing is None else failing.error)
        is_taken.set()

    runner = LoopRunner(report=report, timing=AT_ONCE)
    async with running(runner, work.loop(timedelta(milliseconds=1))):
        await is_taken.wait()

    assert taken[0] == "good"
    assert PHONE not in lines.getvalue()


async def test_error_in_a_loop_ends_neither_the_service_nor_the_loop(
    dsn: str,
    lines: StringIO,  # noqa: F811
) -> None:
    readings: list[float] = []

    def read() -> float:
        readings.append(1)
        if len(readings) < 3:
            raise KeyError(PHONE)
        return 1

    async with zapwatch(dsn) as z:
        channel = await z.channel()
        z.app.metrics.measure(Gauge("test", "Of this test.", registry=CollectorRegistry()), read)

        async def count() -> int:
            return len(readings)

        await z.until(count, lambda n: n >= 4)
        assert await z.post(channel, Evolution().update("open")) == 204

    assert "a round of loop event_loop_lag failed" in lines.getvalue()
    assert ", in test_error_in_a_loop_ends_neither_the_service_nor_the_loop.<locals>.read" in lines.getvalue()
    assert PHONE not in lines.getvalue()


async def test_statement_that_is_refused_to_a_loop_ends_nothing(
    dsn: str, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()

        await admin.execute(
            "update zapwatch_gateways set base_url = 'http://127.0.0.1:9', version_due_at = 'epoch'; "
            "alter table zapwatch_gateways add constraint refused check (version_due_at = 'epoch') not valid"
        )

        async def said() -> str:
            return caplog.text

        await z.until(said, lambda text: "refuses a statement of loop gateway_versions" in text)
        assert await z.post(channel, Evolution().update("open")) == 204
