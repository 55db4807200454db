"""Old events go, the newest stays, a replay goes on from a snapshot, and nobody waits for any of it."""

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg
import pytest

from db.connection.pool import connect_writer
from db.connection.types import Connection
from db.history.replay import replay
from db.history.retention import CHANNELS, forget, take_snapshots
from db.ingest.apply import apply
from statemachine.model import Reason, Trigger
from statemachine.signals import Effect
from tests.conftest import connected
from tests.db.entries import RULES, T0, Of, register
from tests.db.ingest.test_apply import story
from tests.support.eventually import eventually

KEEP = timedelta(days=10)
DAY = timedelta(days=1)
SECONDS_OF_A_DAY = 86400


class Replayed(NamedTuple):
    """What invariant 7 speaks of: a channel as a replay makes it, and what became of its incidents."""

    channel: tuple[object, ...]
    effects: list[Effect]


async def make_due(connection: Connection) -> None:
    """Have every channel looked at; the tests' time is not the database's."""
    await connection.execute("update zapwatch_channels set retention_due_at = '-infinity'")


async def look(connection: Connection, now: datetime, keep: timedelta = KEEP) -> int:
    """Look at all channels and then at all events, and return how many of these were forgotten."""
    await make_due(connection)
    return await tend(connection, now, keep)


async def tend(connection: Connection, now: datetime, keep: timedelta = KEEP) -> int:
    """Look at the channels that are due, then at all events; return how many of these were forgotten."""
    while await take_snapshots(connection, now, keep):
        pass
    return await forget_all(connection, now, keep)


async def forget_all(connection: Connection, now: datetime, keep: timedelta = KEEP, page: int = 1000) -> int:
    """Make one pass over the events, and return how many were forgotten."""
    total, last = 0, 0
    while True:
        events, following = await forget(connection, last, now, keep, page)
        total += events
        if following is None:
            return total
        last = following


async def replayed(connection: Connection, channel_id: UUID) -> Replayed:
    """What a replay gives."""
    channel, effects = await replay(connection, channel_id)
    times = channel.since, channel.first_unhealthy_at, channel.terminal_at, channel.departures
    named = channel.status[:2], channel.version, channel.has_been_open, channel.evidence, channel.incident
    return Replayed((*named, *times), effects)


async def days_kept(connection: Connection, channel_id: UUID) -> list[int]:
    """The days since T0 on which the channel's events arrived."""
    rows = await connection.fetch(
        "select received_at from zapwatch_events where channel_id = $1 order by id", channel_id
    )
    return [(row["received_at"] - T0) // DAY for row in rows]


async def a_daily_change(connection: Connection, of: Of, days: int) -> None:
    """One change of state a day, and a look after each."""
    for day in range(days):
        trigger = Trigger.DROPPED if day % 2 else Trigger.OPENED
        await apply(connection, [of.told(day * SECONDS_OF_A_DAY, trigger)], RULES)
        await look(connection, T0 + day * DAY)


async def aged(connection: Connection, of: Of, events: int = 20) -> datetime:
    """Give a channel events that are to be forgotten all but the newest; return when they are."""
    await look(connection, T0 - 2 * DAY)
    for number in range(events):
        trigger = Trigger.DROPPED if number % 2 else Trigger.OPENED
        await apply(connection, [of.told(number, trigger)], RULES)
    await look(connection, T0 + DAY)
    return await _ripe(connection)


async def count(connection: Connection, table: str = "zapwatch_events") -> int:
    return int(await connection.fetchval(f"select count(*) from {table}"))


async def test_old_events_go_and_young_ones_stay(connection: Connection) -> None:
    of = Of(await register(connection))

    await a_daily_change(connection, of, 30)

    kept = await days_kept(connection, of.channel_id)
    assert kept[-11:] == list(range(19, 30))
    assert 29 - kept[0] <= 12


async def test_an_event_waits_for_the_snapshot_after_it_and_no_longer(connection: Connection) -> None:
    of = Of(await register(connection))
    oldest = []

    for day in range(40):
        await apply(connection, [of.told(day * SECONDS_OF_A_DAY, Trigger.OPENED)], RULES)
        await apply(connection, [of.told(day * SECONDS_OF_A_DAY + 60, Trigger.DROPPED)], RULES)
        await look(connection, T0 + day * DAY + timedelta(hours=12))
        oldest.append(day - (await days_kept(connection, of.channel_id))[0])

    assert 10 <= max(oldest) <= 12


async def test_the_newest_event_of_a_silent_channel_stays(connection: Connection) -> None:
    of = Of(await register(connection))
    await aged(connection, of)

    forgotten = await look(connection, T0 + 900 * DAY)

    [event] = await connection.fetch("select * from zapwatch_events")
    assert forgotten == 19
    assert event["received_at"] == T0 + timedelta(seconds=19)


async def test_nothing_is_forgotten_before_its_time(connection: Connection) -> None:
    of = Of(await register(connection))
    await aged(connection, of)

    assert await look(connection, T0 + KEEP) == 0


async def test_an_event_that_is_kept_is_counted_on_as_before(connection: Connection) -> None:
    of = Of(await register(connection))
    await a_daily_change(connection, of, 3)
    await look(connection, T0 + 100 * DAY)

    await apply(connection, [of.told(100 * SECONDS_OF_A_DAY, Trigger.OPENED)], RULES)

    [event] = await connection.fetch("select count, last_received_at from zapwatch_events")
    assert tuple(event) == (2, T0 + 100 * DAY)


@pytest.mark.parametrize("cut", range(4, 40, 4))
async def test_a_replay_from_a_snapshot_gives_what_one_from_the_beginning_gives(
    connection: Connection, cut: int
) -> None:
    channels = [Of(await register(connection, f"loja-{n}", f"http://evo-{n}")) for n in range(12)]
    stories = [story(of, seed) for seed, of in enumerate(channels)]
    await look(connection, T0 - DAY)
    for entries in stories:
        await apply(connection, entries[:cut], RULES)
    until_cut = [await replayed(connection, of.channel_id) for of in channels]
    await look(connection, T0 + DAY)
    for entries in stories:
        await apply(connection, entries[cut:], RULES)
    whole = [await replayed(connection, of.channel_id) for of in channels]

    forgotten = await look(connection, T0 + 2 * DAY + KEEP)

    rest = [await replayed(connection, of.channel_id) for of in channels]
    assert forgotten > 12
    assert [r.channel for r in rest] == [w.channel for w in whole]
    told = [before.effects + after.effects for before, after in zip(until_cut, rest, strict=True)]
    assert told == [w.effects for w in whole]


async def test_a_replay_goes_on_from_an_incident_that_another_application_opened(
    connection: Connection,
) -> None:
    of = Of(await register(connection))
    await look(connection, T0 - DAY)
    await apply(connection, [of.told(0, Trigger.OPENED), of.told(10, Trigger.CONNECTING)], RULES)
    await connection.execute("select whatsapp_heartbeat_open_incident($1, 'connecting')", of.channel_id)
    await look(connection, T0 + DAY)

    await look(connection, T0 + 5000 * DAY)

    channel, _ = await replay(connection, of.channel_id)
    assert await count(connection) == 1
    assert channel.incident is not None
    assert channel.incident.kind == "connecting"


async def test_two_replicas_share_the_channels_and_wait_for_nobody(connection: Connection, dsn: str) -> None:
    await _crowd(connection, CHANNELS + 30)
    await make_due(connection)

    async with connected(dsn) as other, connection.transaction():
        async with asyncio.timeout(30):
            one = await take_snapshots(connection, T0 + 3 * DAY, KEEP)
            two = await take_snapshots(other, T0 + 3 * DAY, KEEP)

    assert (one, two) == (CHANNELS, 30)


async def test_two_replicas_share_the_events_and_wait_for_nobody(connection: Connection, dsn: str) -> None:
    now = await _crowd(connection, 50)

    async with connected(dsn) as other, connection.transaction():
        async with asyncio.timeout(30):
            one = await forget(connection, 0, now, KEEP, events=200)
            two = await forget_all(other, now)

    assert (one.events, two) == (200, 250)
    assert await count(connection) == 50


async def test_two_replicas_at_once_forget_each_event_once(connection: Connection, dsn: str) -> None:
    now = await _crowd(connection, 300)

    async with connected(dsn) as other:
        one, two = await asyncio.gather(forget_all(connection, now, page=50), forget_all(other, now, page=50))

    # One that both wanted at the same moment is nobody's until the next pass.
    three = await forget_all(connection, now)
    assert one + two + three == 9 * 300
    assert await count(connection) == 300


async def test_a_pass_goes_on_page_by_page_and_ends_with_young_events(connection: Connection) -> None:
    of = Of(await register(connection))
    now = await aged(connection, of)
    today = (now - T0).total_seconds()
    for number in range(12):
        trigger = Trigger.DROPPED if number % 2 else Trigger.OPENED
        await apply(connection, [of.told(today + number, trigger)], RULES)

    pages = [await forget(connection, 0, now, KEEP, events=8)]
    while (last := pages[-1].last) is not None:
        pages.append(await forget(connection, last, now, KEEP, events=8))

    assert [page.events for page in pages] == [8, 8, 3]


async def test_apply_is_neither_made_to_wait_nor_turned_away(connection: Connection, dsn: str) -> None:
    of = Of(await register(connection))
    now = await aged(connection, of)
    await apply(connection, [of.told(20, Trigger.OPENED)], RULES)
    await make_due(connection)
    writer = await connect_writer(dsn)

    async with connection.transaction():
        forgotten = await tend(connection, now)
        again = of.told(20, Trigger.OPENED)
        more = of.told(25, Trigger.OPENED)
        other = of.told(30, Trigger.UNPAIRED, Reason.LOGGED_OUT, 401)
        await apply(writer, [again, more, other], RULES)
    await writer.close()

    assert forgotten == 19
    assert await connection.fetchval("select max(event_id) = 21 from zapwatch_snapshots")
    assert await connection.fetchval("select state from zapwatch_states") == "disconnected/unpaired"


async def test_a_batch_that_is_being_applied_holds_up_no_forgetting(connection: Connection, dsn: str) -> None:
    of = Of(await register(connection))
    now = await aged(connection, of)

    async with connected(dsn) as writer, writer.transaction():
        await apply(writer, [of.told(30, Trigger.OPENED), of.told(5, Trigger.DROPPED)], RULES)
        async with asyncio.timeout(30):
            forgotten = await forget_all(connection, now)

    # The redelivered one is locked while it is counted.
    assert forgotten == 18
    assert await look(connection, now) == 1


@pytest.mark.parametrize(
    ("lock", "left"),
    [
        ("select 1 from zapwatch_channels where channel_id = $1 for update", 20),
        ("select 1 from zapwatch_events where channel_id = $1 for update", 20),
        ("select 1 from zapwatch_states where channel_id = $1 for update", 1),
        ("select 1 from notification_channels where id = $1 for no key update", 1),
    ],
    ids=["channel", "events", "state", "shared row"],
)
async def test_a_lock_that_somebody_holds_delays_that_channel_alone(
    connection: Connection, dsn: str, lock: str, left: int
) -> None:
    locked, free = Of(await register(connection, "one")), Of(await register(connection, "two"))
    for of in locked, free:
        await look(connection, T0 - 2 * DAY)
        await apply(
            connection, [of.told(n, (Trigger.OPENED, Trigger.DROPPED)[n % 2]) for n in range(20)], RULES
        )
    await look(connection, T0 + DAY)
    await make_due(connection)
    now = T0 + 2 * DAY + KEEP

    async with connected(dsn) as beside, beside.transaction():
        await beside.execute(lock, locked.channel_id)
        async with asyncio.timeout(30):
            await tend(connection, now)

    assert len(await days_kept(connection, free.channel_id)) == 1
    assert len(await days_kept(connection, locked.channel_id)) == left
    await look(connection, now)
    assert len(await days_kept(connection, locked.channel_id)) == 1


async def test_what_is_interrupted_half_way_loses_nothing_and_goes_on(
    connection: Connection, dsn: str
) -> None:
    of = Of(await register(connection))
    now = await aged(connection, of)
    whole = await replayed(connection, of.channel_id)

    async with connected(dsn) as beside:
        interrupted = await asyncpg.connect(dsn)
        async with beside.transaction():
            # Lets it read events, but delete none.
            await beside.execute("lock table zapwatch_events in share mode")
            forgetting = asyncio.create_task(forget_all(interrupted, now))
            await _waiting(beside, interrupted.get_server_pid())
            await beside.execute("select pg_terminate_backend($1)", interrupted.get_server_pid())
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
                await forgetting

    assert await count(connection) == 20
    assert await replayed(connection, of.channel_id) == whole
    assert await forget_all(connection, now) == 19
    assert (await replayed(connection, of.channel_id)).channel == whole.channel


async def test_the_database_lets_no_event_go_that_is_not_in_a_snapshot(connection: Connection) -> None:
    of = Of(await register(connection))
    await apply(connection, story(of, 1), RULES)
    before = await count(connection)

    await look(connection, T0 + 900 * DAY)

    assert await count(connection) == before


async def _crowd(connection: Connection, channels: int) -> datetime:
    """Give many channels ten events each, nine of which are to be forgotten; return when they are."""
    await register(connection)
    for statement in (
        "insert into notification_channels (id, tenant_id, provider) select gen_random_uuid(), tenant_id,"
        f" provider from notification_channels, generate_series(2, {channels})",
        "insert into zapwatch_channels (channel_id, tenant_id, provider) select id, tenant_id, provider"
        " from notification_channels on conflict do nothing",
        "insert into zapwatch_states (channel_id, tenant_id) select id, tenant_id from notification_channels"
        " on conflict do nothing",
    ):
        await connection.execute(statement)
    await look(connection, T0 - 2 * DAY)
    await connection.execute(
        "insert into zapwatch_events"
        " (channel_id, tenant_id, source, name, received_at, last_received_at, state)"
        " select channel_id, tenant_id, 'webhook', 'x', $1, $1, 'unknown'"
        " from generate_series(1, 10) n, zapwatch_states order by n",
        T0,
    )
    await look(connection, T0 + DAY)
    return await _ripe(connection)


async def _ripe(connection: Connection) -> datetime:
    """Let time pass until a replay begins with the snapshots of T0's next day; return when that is."""
    now = T0 + 2 * DAY + KEEP
    await make_due(connection)
    while await take_snapshots(connection, now, KEEP):
        pass
    return now


async def _waiting(connection: Connection, pid: int) -> None:
    """Return when that backend waits for a lock."""
    await eventually(lambda: connection.fetchval("select cardinality(pg_blocking_pids($1)) > 0", pid))
