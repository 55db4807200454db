"""What a sweep writes of open channels comes to what the machine makes of a probe that says open."""

from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from db.connection.types import Connection
from db.history.replay import replay
from db.ingest.apply import BulkProbeAnswer, apply, confirm
from db.ingest.entry import Entry, Source
from statemachine.model import Rules, State, Trigger
from statemachine.signals import Answered
from tests.conftest import connected
from tests.db.entries import RULES, Of, at, register
from tests.db.ingest.test_freshen import HISTORIES, History, live

STATE = """
select state, version, reason, since, last_event_at, fresh_at, probed_at, due_at, probe_due_at, memory,
  told_rules, n.last_health_check
from zapwatch_states join notification_channels n on n.id = channel_id where channel_id = $1
"""
EVENTS = """
select source, name, trigger, reason, status, at, last_at, received_at, last_received_at, count, state, data
from zapwatch_events where channel_id = $1 order by id
"""
TOOK = timedelta(seconds=1)


def question(began_at: datetime) -> BulkProbeAnswer:
    """One that took a second and concerns every channel."""
    return BulkProbeAnswer(began_at, began_at + TOOK, began_at + timedelta(days=99))


async def ask(
    connection: Connection,
    *channels: Of,
    began_at: datetime,
    version: int | None = None,
    rules: Rules = RULES,
) -> set[Any]:
    """Have it confirmed that channels of one gateway are open, and return those it was written of."""
    rows = await connection.fetch("select channel_id, version, gateway_id from zapwatch_states")
    of = {row["channel_id"]: row for row in rows}
    versions = {
        it.channel_id: of[it.channel_id]["version"] if version is None else version for it in channels
    }
    gateway = of[channels[0].channel_id]["gateway_id"]
    return await confirm(connection, gateway, versions, question(began_at), rules)


async def stored(connection: Connection, channel: Of) -> tuple[Any, ...]:
    """All that is stored of a channel."""
    row = await connection.fetchrow(STATE, channel.channel_id)
    assert row is not None
    kept = dict(row) | {"memory": _times(orjson.loads(row["memory"]))}
    events = [dict(e) | {"data": _times(orjson.loads(e["data"] or "{}"))} for e in
              await connection.fetch(EVENTS, channel.channel_id)]  # fmt: skip
    return kept, events


def _times(document: Any) -> Any:
    """Return a document with its times read, however they are written."""
    if isinstance(document, dict):
        return {name: _times(value) for name, value in document.items()}
    if isinstance(document, list):
        return [_times(value) for value in document]
    try:
        return datetime.fromisoformat(document)
    except (TypeError, ValueError):
        return document


@pytest.mark.parametrize(("history", "plain"), HISTORIES.values(), ids=HISTORIES)
async def test_what_it_writes_is_what_the_machine_would(
    connection: Connection, history: History, plain: bool
) -> None:
    channel = Of(await register(connection))
    began_at = at(await live(connection, channel, history) + 90)
    version = await connection.fetchval("select version from zapwatch_states")
    answered = Answered(began_at + TOOK, began_at, version, Trigger.OPENED, status=200)
    transaction = connection.transaction()
    await transaction.start()
    entry = Entry(channel.channel_id, Source.PROBE, "probe", began_at + TOOK, answered)
    await apply(connection, [entry], RULES)
    expected = await stored(connection, channel)
    await transaction.rollback()
    before = await stored(connection, channel)

    written = await ask(connection, channel, began_at=began_at)

    assert written == ({channel.channel_id} if plain else set())
    assert await stored(connection, channel) == (expected if plain else before)


async def test_a_second_one_is_counted_on_the_row_of_the_first(connection: Connection) -> None:
    channel = Of(await register(connection))
    await apply(connection, [channel.told(0, Trigger.OPENED)], RULES)

    for seconds in (90, 180, 270):
        assert await ask(connection, channel, began_at=at(seconds))

    (_, events) = await stored(connection, channel)
    assert [(event["source"], event["count"]) for event in events] == [("webhook", 1), ("probe", 3)]
    assert (events[1]["at"], events[1]["last_at"]) == (at(90), at(270))


async def test_a_late_webhook_of_before_moves_nothing_then_or_in_a_replay(connection: Connection) -> None:
    channel = Of(await register(connection))
    await apply(connection, [channel.told(0, Trigger.OPENED)], RULES)
    await ask(connection, channel, began_at=at(90))

    await apply(connection, [channel.told(30, Trigger.DROPPED, received=100)], RULES)

    (now, _), (again, _) = await stored(connection, channel), await replay(connection, channel.channel_id)
    assert (now["state"], again.state) == ("open", State.OPEN)
    assert (again.version, again.since) == (now["version"], now["since"])
    assert again.probed_at == now["probed_at"]


@pytest.mark.parametrize(
    ("what", "statement"),
    {
        "changed since": "update zapwatch_states set version = version + 1",
        "being asked": "update zapwatch_states set probe_claimed_until = $1",
        "heard of since": "update zapwatch_states set last_event_at = $1",
        "asked since": "update zapwatch_states set probed_at = $1",
        "not probed": "update zapwatch_states set probe_due_at = null",
        "due for a look": "update zapwatch_states set due_at = $1",
        "probed later than it reaches": "update zapwatch_states set probe_due_at = $1 + interval '999 days'",
        "on another gateway": "update zapwatch_states set gateway_id = gen_random_uuid()",
    }.items(),
)
async def test_a_channel_is_left_to_its_own_probe_when_it_is(
    connection: Connection, what: str, statement: str
) -> None:
    channel = Of(await register(connection))
    await apply(connection, [channel.told(0, Trigger.OPENED)], RULES)
    row = await connection.fetchrow("select version, gateway_id from zapwatch_states")
    assert row is not None
    args = [at(90.5)] if "$1" in statement else []
    await connection.execute(statement.replace("$1", "$1::timestamptz"), *args)
    before = await stored(connection, channel)

    asked = question(at(90))
    written = await confirm(connection, row["gateway_id"], {channel.channel_id: row["version"]}, asked, RULES)

    assert written == set(), what
    assert await stored(connection, channel) == before


async def test_locked_channels_are_left_to_their_own_probes(connection: Connection, dsn: str) -> None:
    locked, free = Of(await register(connection)), Of(await register(connection, "loja-02"))
    for channel in (locked, free):
        await apply(connection, [channel.told(0, Trigger.OPENED)], RULES)

    async with connected(dsn) as other, other.transaction():
        await other.execute("select from zapwatch_states where channel_id = $1 for update", locked.channel_id)
        written = await ask(connection, locked, free, began_at=at(90))

    assert written == {free.channel_id}


async def test_the_applications_beside_us_are_shown_it_once_a_minute(connection: Connection) -> None:
    channel = Of(await register(connection))
    await apply(connection, [channel.told(0, Trigger.OPENED)], RULES)
    shown = []

    for seconds in (90, 120, 151):
        await ask(connection, channel, began_at=at(seconds))
        shown.append(await connection.fetchval("select last_health_check from notification_channels"))

    assert shown == [at(90), at(90), at(151)]


async def test_the_next_probes_are_spread_over_the_share_that_is_given(connection: Connection) -> None:
    rules = RULES._replace(stale_after=timedelta(seconds=100))
    channels = [Of(await register(connection, f"loja-{n:02}")) for n in range(20)]
    await apply(connection, [channel.told(0, Trigger.OPENED) for channel in channels], rules)
    rows = await connection.fetch("select channel_id, version, gateway_id from zapwatch_states")
    versions = {row["channel_id"]: row["version"] for row in rows}

    asked = BulkProbeAnswer(at(90), at(91), at(10**6), stretch=0.05)
    await confirm(connection, rows[0]["gateway_id"], versions, asked, rules)

    due = [row[0] for row in await connection.fetch("select probe_due_at from zapwatch_states order by 1")]
    assert at(191) <= due[0] < due[-1] <= at(196)
