"""Incidents open and resolve by set-based functions, and by the public ones around them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from db.connection.types import Connection
from tests.conftest import connected
from tests.db.conftest import add_channel

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


async def rpc_open(connection: Connection, channel: UUID, kind: str = "error", *more: str | None) -> UUID:
    names = ", ".join(f"${number}" for number in range(1, 3 + len(more)))
    query = f"select whatsapp_heartbeat_open_incident({names})"
    incident: UUID = await connection.fetchval(query, channel, kind, *more)
    return incident


async def rpc_resolve(connection: Connection, channel: UUID) -> int:
    resolved: int = await connection.fetchval("select whatsapp_heartbeat_resolve_open_incidents($1)", channel)
    return resolved


async def incident(connection: Connection, incident_id: UUID) -> dict[str, Any]:
    row = await connection.fetchrow("select * from whatsapp_connection_incidents where id = $1", incident_id)
    assert row is not None
    return dict(row)


async def alerts(connection: Connection) -> list[tuple[UUID, str]]:
    return [
        (row[0], row[1])
        for row in await connection.fetch("select incident_id, kind from zapwatch_alerts order by id")
    ]


async def open_many(
    connection: Connection, *opened: tuple[UUID, str, str | None, str | None, datetime, datetime]
) -> dict[UUID, tuple[UUID, bool]]:
    rows = await connection.fetch(
        "select * from zapwatch_incidents_open($1, $2, $3, $4, $5, $6)",
        *(list(column) for column in zip(*opened, strict=True)),
    )
    return {row["channel_id"]: (row["incident_id"], row["opened"]) for row in rows}


async def resolve_many(
    connection: Connection, *resolved: tuple[UUID, datetime, str | None, bool]
) -> dict[UUID, UUID]:
    rows = await connection.fetch(
        "select * from zapwatch_incidents_resolve($1, $2, $3, $4)",
        *(list(column) for column in zip(*resolved, strict=True)),
    )
    return {row["channel_id"]: row["incident_id"] for row in rows}


async def test_a_call_opens_many_incidents_and_their_alerts(connection: Connection) -> None:
    first, second = await add_channel(connection), await add_channel(connection)

    opened = await open_many(
        connection,
        (first, "disconnected", "open", '{"a": 1}', NOON, NOON + MINUTE),
        (second, "error", None, None, NOON - MINUTE, NOON),
    )

    row = await incident(connection, opened[first][0])
    assert (row["channel_id"], row["provider"], row["kind"]) == (first, "wapi", "disconnected")
    assert (row["last_state"], row["details"]) == ("open", '{"a": 1}')
    assert (row["started_at"], row["opened_at"]) == (NOON, NOON + MINUTE)
    assert (row["resolved_at"], row["duration_seconds"], row["notification_count"]) == (None, None, 0)
    assert (await incident(connection, opened[second][0]))["details"] == "{}"
    assert {is_new for _, is_new in opened.values()} == {True}
    assert set(await alerts(connection)) == {(opened[first][0], "opened"), (opened[second][0], "opened")}


async def test_opening_again_updates_the_open_one_and_tells_of_the_change(connection: Connection) -> None:
    channel = await add_channel(connection)
    before = await open_many(connection, (channel, "error", "open", '{"a": 1}', NOON, NOON))

    after = await open_many(
        connection, (channel, "qr_pending", "connecting", '{"b": 2}', NOON + MINUTE, NOON + MINUTE)
    )

    assert after == {channel: (before[channel][0], False)}
    row = await incident(connection, before[channel][0])
    assert (row["kind"], row["last_state"], row["details"]) == ("qr_pending", "connecting", '{"b": 2}')
    assert (row["started_at"], row["opened_at"]) == (NOON, NOON)
    assert [kind for _, kind in await alerts(connection)] == ["opened", "changed"]


async def test_null_keeps_last_state_and_details_of_the_open_one(connection: Connection) -> None:
    channel = await add_channel(connection)
    opened = await open_many(connection, (channel, "error", "open", '{"a": 1}', NOON, NOON))

    await open_many(connection, (channel, "connecting", None, None, NOON, NOON))

    row = await incident(connection, opened[channel][0])
    assert (row["kind"], row["last_state"], row["details"]) == ("connecting", "open", '{"a": 1}')


async def test_deleted_and_missing_channels_are_skipped_in_a_batch(connection: Connection) -> None:
    kept, deleted = await add_channel(connection), await add_channel(connection)
    await connection.execute("update notification_channels set deleted_at = now() where id = $1", deleted)

    opened = await open_many(
        connection,
        *((channel, "error", None, None, NOON, NOON) for channel in (kept, deleted, uuid4())),
    )

    assert opened.keys() == {kept}


async def test_resolving_sets_duration_merges_details_and_tells_who_is_to_be_told(
    connection: Connection,
) -> None:
    told, untold = await add_channel(connection), await add_channel(connection)
    opened = await open_many(
        connection,
        *((channel, "error", None, '{"a": 1}', NOON, NOON + MINUTE) for channel in (told, untold)),
    )

    resolved = await resolve_many(
        connection,
        (told, NOON + 1.5 * MINUTE, '{"b": 2}', True),
        (untold, NOON + 2 * MINUTE, None, False),
    )

    assert resolved == {channel: row[0] for channel, row in opened.items()}
    row = await incident(connection, resolved[told])
    assert (row["resolved_at"], row["duration_seconds"]) == (NOON + 1.5 * MINUTE, 90)
    assert row["details"] == '{"a": 1, "b": 2}'
    assert (await incident(connection, resolved[untold]))["details"] == '{"a": 1}'
    assert (await alerts(connection))[2:] == [(resolved[told], "resolved")]


async def test_an_incident_never_ends_before_it_began(connection: Connection) -> None:
    channel = await add_channel(connection)
    await open_many(connection, (channel, "error", None, None, NOON, NOON))

    resolved = await resolve_many(connection, (channel, NOON - MINUTE, None, True))

    row = await incident(connection, resolved[channel])
    assert (row["resolved_at"], row["duration_seconds"]) == (NOON, 0)


async def test_a_removed_channels_incident_can_be_resolved(connection: Connection) -> None:
    channel = await add_channel(connection)
    await open_many(connection, (channel, "error", None, None, NOON, NOON))
    await connection.execute("update notification_channels set deleted_at = now()")

    resolved = await resolve_many(connection, (channel, NOON, '{"resolved_by": "channel_removed"}', False))

    assert resolved.keys() == {channel}


async def test_resolving_what_is_not_open_does_nothing(connection: Connection) -> None:
    channel = await add_channel(connection)

    assert await resolve_many(connection, (channel, NOON, None, True)) == {}
    assert await alerts(connection) == []


async def test_past_incidents_are_recorded_whole_with_both_alerts(connection: Connection) -> None:
    channel, deleted = await add_channel(connection), await add_channel(connection)
    await connection.execute("update notification_channels set deleted_at = now() where id = $1", deleted)
    ongoing = await open_many(connection, (channel, "error", None, None, NOON, NOON))

    rows = await connection.fetch(
        "select * from zapwatch_incidents_record($1, $2, $3, $4, $5, $6, $7)",
        [channel, channel, deleted],
        ["error", "connecting", "error"],
        ["open", None, None],
        ['{"a": 1}', None, None],
        [NOON - 9 * MINUTE, NOON - 5 * MINUTE, NOON],
        [NOON - 8 * MINUTE, NOON - 4 * MINUTE, NOON],
        [NOON - 7 * MINUTE, NOON - 2 * MINUTE, NOON],
    )

    assert [row["channel_id"] for row in rows] == [channel, channel]
    recorded = [await incident(connection, row["incident_id"]) for row in rows]
    assert sorted((row["kind"], row["duration_seconds"]) for row in recorded) == [
        ("connecting", 180),
        ("error", 120),
    ]
    told = [alert for alert in await alerts(connection) if alert[0] != ongoing[channel][0]]
    assert sorted(told) == sorted(
        (row["incident_id"], kind) for row in rows for kind in ("opened", "resolved")
    )
    assert (await incident(connection, ongoing[channel][0]))["resolved_at"] is None


async def test_an_open_incident_is_unique_by_index_and_not_by_care(connection: Connection) -> None:
    channel = await add_channel(connection)
    await open_many(connection, (channel, "error", None, None, NOON, NOON))

    with pytest.raises(asyncpg.UniqueViolationError, match="uq_wa_incidents_open_per_channel"):
        await connection.execute(
            "insert into whatsapp_connection_incidents (tenant_id, channel_id, provider, kind) "
            "select tenant_id, channel_id, provider, kind from whatsapp_connection_incidents"
        )


async def test_concurrent_callers_open_one_incident(connection: Connection, dsn: str) -> None:
    channel = await add_channel(connection)

    async def call() -> UUID:
        async with connected(dsn) as own:
            return await rpc_open(own, channel)

    ids = await asyncio.gather(*(call() for _ in range(8)))

    assert len(set(ids)) == 1
    assert await alerts(connection) == [(ids[0], "opened")]
    assert await connection.fetchval("select sum(count) from zapwatch_events") == 8


async def test_callers_of_a_channel_without_a_state_open_one_incident_too(
    connection: Connection, dsn: str
) -> None:
    channel = await add_channel(connection)
    await connection.execute("delete from zapwatch_states")

    async def call() -> UUID:
        async with connected(dsn) as own:
            return await rpc_open(own, channel)

    ids = await asyncio.gather(*(call() for _ in range(8)))

    assert len(set(ids)) == 1
    assert await alerts(connection) == [(ids[0], "opened")]


async def test_the_public_function_opens_now_and_is_idempotent(connection: Connection) -> None:
    channel = await add_channel(connection)
    async with connection.transaction():
        now = await connection.fetchval("select now()")
        opened = await rpc_open(connection, channel, "disconnected", "open", '{"a": 1}')

    again = await rpc_open(connection, channel, "error")

    assert again == opened
    row = await incident(connection, opened)
    assert (row["started_at"], row["opened_at"]) == (now, now)
    assert (row["kind"], row["last_state"], row["details"]) == ("error", "open", '{"a": 1}')
    assert row["updated_at"] > row["created_at"]


async def test_parameters_have_their_documented_names(connection: Connection) -> None:
    channel = await add_channel(connection)

    await connection.fetchval(
        "select whatsapp_heartbeat_open_incident(p_channel_id => $1, p_kind => 'unknown', "
        "p_last_state => 'open', p_details => '{}')",
        channel,
    )

    query = "select whatsapp_heartbeat_resolve_open_incidents(p_channel_id => $1)"
    assert await connection.fetchval(query, channel) == 1


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_missing_or_deleted_channel_is_not_found(connection: Connection, deleted: bool) -> None:
    channel = await add_channel(connection) if deleted else uuid4()
    await connection.execute("update notification_channels set deleted_at = now()")

    with pytest.raises(asyncpg.RaiseError, match=r"^channel_not_found$"):
        await rpc_open(connection, channel)


@pytest.mark.parametrize("kind", ["open", "", "DISCONNECTED", "dropped"])
async def test_an_undocumented_kind_is_refused_by_name(connection: Connection, kind: str) -> None:
    channel = await add_channel(connection)

    with pytest.raises(asyncpg.RaiseError, match=rf"^invalid_kind: {kind}$"):
        await rpc_open(connection, channel, kind)


async def test_a_null_kind_is_refused(connection: Connection) -> None:
    channel = await add_channel(connection)

    with pytest.raises(asyncpg.RaiseError, match=r"^invalid_kind"):
        await connection.fetchval("select whatsapp_heartbeat_open_incident($1, null)", channel)


async def test_a_call_from_outside_leaves_event_and_alert_and_makes_the_channel_due(
    connection: Connection,
) -> None:
    channel = await add_channel(connection)
    await connection.execute("update zapwatch_states set state = 'connecting'")

    opened = await rpc_open(connection, channel, "error", "open", '{"a": 1}')

    event = await connection.fetchrow("select * from zapwatch_events")
    assert event is not None
    assert (event["source"], event["name"], event["state"]) == ("operator", "incident_opened", "connecting")
    assert (event["trigger"], event["count"], event["channel_id"]) == (None, 1, channel)
    assert event["data"] == '{"kind": "error", "details": {"a": 1}, "last_state": "open"}'
    assert await alerts(connection) == [(opened, "opened")]
    assert await connection.fetchval("select due_at <= now() from zapwatch_states")


async def test_a_caller_that_repeats_itself_fills_one_event(connection: Connection) -> None:
    channel, other = await add_channel(connection), await add_channel(connection)
    for _ in range(3):
        await rpc_open(connection, channel)
        await rpc_open(connection, other)

    await rpc_open(connection, channel, "connecting")

    counts = "select array_agg(count order by id) from zapwatch_events where channel_id = $1"
    assert await connection.fetchval(counts, channel) == [3, 1]
    assert await connection.fetchval(counts, other) == [3]


async def test_resolving_from_outside_says_how_many_and_tells(connection: Connection) -> None:
    channel = await add_channel(connection)
    opened = await rpc_open(connection, channel)

    assert await rpc_resolve(connection, channel) == 1
    assert await rpc_resolve(connection, channel) == 0

    row = await incident(connection, opened)
    assert row["resolved_at"] is not None
    assert row["duration_seconds"] == 0
    assert await alerts(connection) == [(opened, "opened"), (opened, "resolved")]
    names = await connection.fetchval("select array_agg(name order by id) from zapwatch_events")
    assert names == ["incident_opened", "incident_resolved"]


async def test_resolving_an_unknown_channel_resolves_nothing(connection: Connection) -> None:
    assert await rpc_resolve(connection, uuid4()) == 0


async def test_a_new_incident_can_open_after_the_last_one_resolved(connection: Connection) -> None:
    channel = await add_channel(connection)
    first = await rpc_open(connection, channel)
    await rpc_resolve(connection, channel)

    second = await rpc_open(connection, channel)

    assert second != first
    assert len(await alerts(connection)) == 3


async def test_marking_notified_counts_and_keeps_the_newest_time(connection: Connection) -> None:
    opened = await rpc_open(connection, await add_channel(connection))
    mark = "select whatsapp_heartbeat_mark_notified(p_incident_id => $1)"

    await connection.fetchval(mark, opened)
    first = await incident(connection, opened)
    await connection.fetchval(mark, opened)

    second = await incident(connection, opened)
    assert (first["notification_count"], second["notification_count"]) == (1, 2)
    assert first["notified_at"] < second["notified_at"]


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ("metadata = '{\"heartbeat_threshold_minutes\": 1}'", True),
        ("is_active = false", True),
        ("deleted_at = now()", True),
        ("metadata = metadata", False),
        ("connection_status = 'open'", False),
    ],
)
async def test_a_channel_is_due_when_its_settings_change(
    connection: Connection, change: str, due: bool
) -> None:
    await add_channel(connection)
    later = datetime.now(UTC) + MINUTE
    await connection.execute("update zapwatch_states set due_at = $1", later)

    await connection.execute(f"update notification_channels set {change}")

    assert (await connection.fetchval("select due_at from zapwatch_states") < later) is due


async def test_a_settings_change_never_postpones_a_deadline(connection: Connection) -> None:
    await add_channel(connection)
    await connection.execute("update zapwatch_states set due_at = $1", NOON)

    await connection.execute("update notification_channels set is_active = false")

    assert await connection.fetchval("select due_at from zapwatch_states") == NOON


@pytest.mark.parametrize(
    ("constraint", "change"),
    [
        ("whatsapp_connection_incidents_kind_check", "kind = 'open'"),
        ("whatsapp_connection_incidents_provider_check", "provider = 'zapi'"),
        ("whatsapp_connection_incidents_duration_check", "duration_seconds = -1"),
        ("whatsapp_connection_incidents_resolved_check", "resolved_at = started_at - interval '1 s'"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    connection: Connection, constraint: str, change: str
) -> None:
    await rpc_open(connection, await add_channel(connection))

    with pytest.raises(asyncpg.CheckViolationError, match=constraint):
        await connection.execute(f"update whatsapp_connection_incidents set {change}")
