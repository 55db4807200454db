"""What is noted of channels to be told: only where somebody wishes it, and each warning once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.connection.types import Connection
from db.ingest.apply import apply
from db.reconcile.claims import settle_subscription
from statemachine.model import Reason, Trigger
from tests.conftest import connected
from tests.db.conftest import add_tenant
from tests.db.entries import RULES, Of, at, register
from tests.support.eventually import eventually

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


async def wish(connection: Connection, tenant: UUID | None, more: str = "null") -> None:
    """Add a destination that wishes to be told of states."""
    await connection.execute(
        "insert into zapwatch_destinations (tenant_id, kind, config, events, disabled_at) "
        f"values ($1, 'webhook', '', '{{incident.opened,channel.state_changed}}', {more})",
        tenant,
    )


async def noted(connection: Connection) -> list[tuple[Any, ...]]:
    rows = await connection.fetch(
        "select previous_state, state, reason, since, version from zapwatch_changes order by id"
    )
    return [tuple(row) for row in rows]


async def test_each_change_of_the_public_state_is_noted_with_what_is_needed_to_tell_it(
    connection: Connection,
) -> None:
    of = Of(await register(connection))
    await wish(connection, await connection.fetchval("select tenant_id from zapwatch_channels"))

    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)
    await apply(connection, [of.told(1, Trigger.DROPPED, Reason.CONNECTION_LOST)], RULES)
    await apply(connection, [of.told(2, Trigger.UNPAIRED, Reason.LOGGED_OUT)], RULES)
    await apply(connection, [of.told(3, Trigger.CONNECTING), of.told(4, Trigger.OPENED)], RULES)

    assert await noted(connection) == [
        ("unknown", "open", None, at(0), 1),
        ("open", "disconnected", "connection_lost", at(1), 2),
        ("disconnected", "open", None, at(4), 4),
    ]


@pytest.mark.parametrize(
    ("who", "more", "count"),
    [
        (None, "null", 0),
        ("tenant", "null", 1),
        ("operators", "null", 1),
        ("another tenant", "null", 0),
        ("tenant", "now()", 0),
        ("operators", "now()", 0),
    ],
)
async def test_nothing_is_noted_that_nobody_wishes(
    connection: Connection, who: str | None, more: str, count: int
) -> None:
    of = Of(await register(connection))
    if who is not None:
        own = await connection.fetchval("select tenant_id from zapwatch_channels")
        whose = {"tenant": own, "operators": None}
        await wish(connection, whose[who] if who in whose else await add_tenant(connection), more)

    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)

    assert len(await noted(connection)) == count


async def test_who_writes_a_state_waits_for_nobody_who_routes(dsn: str, connection: Connection) -> None:
    of = Of(await register(connection))
    await wish(connection, None)
    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)

    async with connected(dsn) as routing, routing.transaction():
        await routing.execute("delete from zapwatch_changes")
        async with asyncio.timeout(5):
            await apply(connection, [of.told(1, Trigger.DROPPED)], RULES)

    assert [row[1] for row in await noted(connection)] == ["disconnected"]


async def settle(connection: Connection, channel: UUID, expires_at: datetime | None, now: datetime) -> None:
    await settle_subscription(connection, channel, expires_at, "PAID", now + DAY, now)


@pytest.mark.parametrize(
    ("asked", "warnings"),
    [
        ([7.01], 0),
        ([7], 1),
        ([6.9, 5.9, 3.1], 1),
        ([6.9, 2.9, 1.9, 0.9, 0.1], 3),
        ([2.5, 2.0], 1),
        ([0.5], 1),
        ([0, -1], 0),
        ([0.5, 2.5, 6.5, 0.4], 1),
    ],
)
async def test_each_number_of_days_warns_once_and_the_nearest_alone(
    connection: Connection, asked: list[float], warnings: int
) -> None:
    channel = await register(connection)

    for left in asked:
        for _ in range(2):
            await settle(connection, channel, NOW, NOW - left * DAY)

    rows = await connection.fetch("select event, expires_at from zapwatch_changes")
    assert [tuple(row) for row in rows] == [("channel.expiring", NOW)] * warnings


async def test_renewed_subscription_is_warned_of_anew(connection: Connection) -> None:
    channel = await register(connection)
    await settle(connection, channel, NOW, NOW - 0.5 * DAY)

    await settle(connection, channel, NOW + 30 * DAY, NOW)
    await settle(connection, channel, NOW + 30 * DAY, NOW + 23.5 * DAY)
    await settle(connection, channel, None, NOW + 24 * DAY)

    rows = await connection.fetch("select expires_at from zapwatch_changes order by id")
    assert [row["expires_at"] for row in rows] == [NOW, NOW + 30 * DAY]


async def test_replicas_that_settle_at_once_warn_once(dsn: str, connection: Connection) -> None:
    channel = await register(connection)

    async with connected(dsn) as one, connected(dsn) as other:
        async with one.transaction():
            await settle(one, channel, NOW, NOW - 2 * DAY)
            second = asyncio.create_task(settle(other, channel, NOW, NOW - 2 * DAY))
            waiting = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()"
            )
            await eventually(lambda: connection.fetchval(waiting))
        await second

    assert await connection.fetchval("select count(*) from zapwatch_changes") == 1
