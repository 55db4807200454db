"""Gateways in trouble: the rows behind `statemachine.gateway`. THE ONLY writer of their state and incidents.

Judges nothing itself, and asks no gateway. Every look at a gateway is one transaction that holds its row, so
any number of replicas may look. It waits for no row: what somebody else has is left to the next look.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from db.connection.tenant_scope import writing
from db.connection.types import Connection, Pool, Record
from db.queries import sql
from db.reconcile.claims import ProbeTarget
from statemachine.gateway import (
    ENOUGH,
    OBJECTION,
    Cause,
    Down,
    FailureStreak,
    Gateway,
    GatewayEffect,
    GatewaySnapshot,
    Health,
    Limits,
    Up,
    decide,
    next_gap,
)

LATELY: Final = 2
"""Windows in which departures are looked for: a probe proves one some time after it happened."""
SPREAD: Final = 0.8
"""Share of the time for settling over which probes are spread; the rest is for their answers."""
HEALTHS: Final = frozenset(Health)
CAUSES: Final = frozenset(Cause)
AROUND: Final = 20
"""Among how many of a gateway's channels the one is chosen that a trial asks about."""


class GatewayObservation(NamedTuple):
    """What a process noted of one gateway since it last told."""

    answered_at: datetime | None = None
    failing: FailureStreak | None = None
    offline: bool = False
    """Nothing came back from anywhere, for longer than silence is blamed on nobody."""


@dataclass(frozen=True, slots=True)
class GatewayVerdict:
    """What a look at a gateway amounted to."""

    gateway: Gateway
    effect: GatewayEffect | None
    newly_failing: bool


class RecoveryProbe(NamedTuple):
    """A gateway that is left to us to be tried, and a channel to ask it about."""

    gateway_id: UUID
    until: datetime
    tries: int
    target: ProbeTarget


async def gateways_in_question(
    connection: Connection,
    now: datetime,
    noted: dict[UUID, GatewayObservation],
    window: timedelta,
    limits: Limits,
) -> list[UUID]:
    """Return the gateways that are to be looked at now."""
    failing = [id for id, told in noted.items() if told.failing is not None]
    answered = [id for id, told in noted.items() if told.answered_at is not None]
    renewed = now + limits.hold / 2
    rows = await connection.fetch(
        sql.gateways_in_question, now - LATELY * window, failing, answered, renewed, ENOUGH, now - OBJECTION
    )
    return [row["id"] for row in rows]


async def judge(
    connection: Connection,
    gateway_id: UUID,
    now: datetime,
    noted: GatewayObservation,
    window: timedelta,
    limits: Limits,
) -> GatewayVerdict | None:
    """Look at a gateway, with what was noted of it, and keep what follows.

    None: somebody has its row, or only a later version knows how it stands.
    """
    async with connection.transaction():
        row = await connection.fetchrow(sql.lock_gateway_health, gateway_id)
        if row is None or not _is_known(row):
            return None
        before = _gateway(row)
        seen = await _look(connection, gateway_id, now, noted, window, row)
        after, effect = decide(before, seen, limits)
        if after != before:
            await connection.execute(sql.save_gateway_health, gateway_id, *_columns(after))
        await _keep_incident(connection, gateway_id, row, effect, now)
        if isinstance(effect, Up):
            await connection.execute(sql.spread_probes, gateway_id, now, SPREAD * limits.settle)
        return GatewayVerdict(after, effect, before.failing is None and after.failing is not None)


async def _look(
    connection: Connection,
    gateway_id: UUID,
    now: datetime,
    noted: GatewayObservation,
    window: timedelta,
    row: Record,
) -> GatewaySnapshot:
    # Who left before the last incident was settled was judged with it; who leaves an open one, still counts.
    after = row["held_until"] if row["incident_id"] is None else row["since"]
    since = max(now - LATELY * window, after or now - LATELY * window)
    fallen = row["incident_id"] if row["cause"] == Cause.MASS_LOSS else None
    counts = await connection.fetchrow(sql.count_gateway_losses, gateway_id, since, window, fallen, ENOUGH)
    assert counts is not None
    return GatewaySnapshot(now, *noted, **counts)


async def _keep_incident(
    connection: Connection, gateway_id: UUID, row: Record, effect: GatewayEffect | None, now: datetime
) -> None:
    incident_id = row["incident_id"]
    match effect:
        case Down(cause, started_at, perhaps_offline):
            details = orjson.dumps({"perhaps_offline": True} if perhaps_offline else {}).decode()
            incident_id = await connection.fetchval(
                sql.open_gateway_incident, gateway_id, cause, details, started_at, now
            )
            left_since = started_at if cause is Cause.MASS_LOSS else None
            await connection.execute(sql.attach_channels, incident_id, gateway_id, left_since)
        case Up():
            await connection.execute(sql.resolve_gateway_incident, incident_id, now)
        case None:
            if row["cause"] == Cause.MASS_LOSS:
                # Whoever leaves while it is open leaves with the others.
                since = row["incident_started_at"]
                await connection.execute(sql.attach_channels, incident_id, gateway_id, since)


async def acknowledge(pool: Pool, reader: UUID | None, incident_id: UUID) -> Record | None:
    """Note that somebody has seen a gateway's incident; return it, or None: there is none for this reader.

    The first time counts. A reader of one tenant sees no gateway's.
    """
    async with writing(pool, reader) as connection:
        return await connection.fetchrow(sql.acknowledge_gateway_incident, incident_id)


async def ask_others(
    connection: Connection, gateway_id: UUID, now: datetime, but: Collection[object]
) -> None:
    """Have some other open channels of a gateway probed now: do they share the fate of these?"""
    await connection.execute(sql.ask_others, gateway_id, now, list(but), ENOUGH)


async def doubt(
    connection: Connection, gateway_ids: Collection[UUID], since: datetime, until: datetime
) -> None:
    """Have nobody blamed until then for the silence of these gateways."""
    await connection.execute(sql.doubt_gateways, list(gateway_ids), since, until)


async def claim_recovery_probes(
    connection: Connection, now: datetime, lease: timedelta, limit: int
) -> list[RecoveryProbe]:
    """Return gateways that are down and due to be tried: one question each, whoever asks it."""
    until = now + lease
    rows = await connection.fetch(sql.claim_recovery_probes, now, until, limit)
    tries = {row["id"]: row["tries"] for row in rows}
    targets = await pick_targets(connection, tries.keys())
    return [
        RecoveryProbe(target.gateway_id, until, tries[target.gateway_id], target)
        for target in targets
        if target.gateway_id is not None
    ]


async def pick_targets(connection: Connection, gateway_ids: Collection[UUID]) -> list[ProbeTarget]:
    """Return a channel of each of these gateways to ask about, another one each time."""
    return [
        ProbeTarget(**row) for row in await connection.fetch(sql.trial_targets, list(gateway_ids), AROUND)
    ]


async def end_recovery_probe(
    connection: Connection, recovery_probe: RecoveryProbe, now: datetime, limits: Limits
) -> None:
    """Say when a gateway is tried again, unless its trial has ended otherwise."""
    again_at = now + next_gap(recovery_probe.tries, limits)
    await connection.execute(
        sql.end_recovery_probe, recovery_probe.gateway_id, recovery_probe.until, again_at
    )


async def gateways_elsewhere(
    connection: Connection, providers: Collection[str], but: Collection[UUID], limit: int
) -> list[UUID]:
    """Return some other gateways of these providers with channels to ask about, those that are up first."""
    rows = await connection.fetch(sql.gateways_elsewhere, list(but), limit, list(providers))
    return [row["id"] for row in rows]


async def count_gateways(connection: Connection) -> dict[str, int]:
    """Return how many gateways with channels there are by state."""
    rows: Sequence[Record] = await connection.fetch(sql.count_gateways)
    return {row["state"]: row["gateways"] for row in rows}


def _is_known(row: Record) -> bool:
    return row["state"] in HEALTHS and (row["cause"] is None or row["cause"] in CAUSES)


def _gateway(row: Record) -> Gateway:
    failing = None
    if row["failing_since"] is not None:
        failing = FailureStreak(
            row["failing_since"], row["failed_at"], tuple(row["failed"]), row["failures"], row["unavailable"]
        )
    return Gateway(
        Health(row["state"]),
        row["since"],
        None if row["cause"] is None else Cause(row["cause"]),
        failing,
        row["suspected_at"],
        row["doubted_at"],
        row["doubted_until"],
        row["held_until"],
        row["try_at"],
        row["tries"],
        row["lost"],
        row["moved_at"],
    )


def _columns(gateway: Gateway) -> tuple[object, ...]:
    failing = gateway.failing
    return (
        gateway.health,
        gateway.since,
        failing and failing.since,
        failing and failing.last_at,
        list(failing.channels) if failing else [],
        failing.times if failing else 0,
        failing.unavailable if failing else 0,
        gateway.suspected_at,
        gateway.doubted_at,
        gateway.doubted_until,
        gateway.held_until,
        gateway.try_at,
        gateway.tries,
        gateway.lost,
        gateway.moved_at,
    )
