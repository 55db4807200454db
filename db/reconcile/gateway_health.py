"""Gateway health: the rows behind `statemachine.gateway`. THE ONLY writer of its state and incidents.

Decides nothing itself, and calls no gateway. Each evaluation of a gateway is one transaction that locks its
row, so any number of replicas may do it. It waits for no lock: a locked gateway is left to the next round.
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
"""Windows in which departures are counted: a probe finds one some time after it happened."""
SPREAD: Final = 0.8
"""Share of `Limits.settle` over which probes are spread; the rest is for their answers."""
HEALTHS: Final = frozenset(Health)
CAUSES: Final = frozenset(Cause)
AROUND: Final = 20
"""Among how many of a gateway's channels the target of a recovery probe is chosen."""


class GatewayObservation(NamedTuple):
    """What one process has seen of a gateway since it last reported."""

    answered_at: datetime | None = None
    failing: FailureStreak | None = None
    offline: bool = False
    """No gateway answered, for longer than that is taken for an outage of our own network."""


@dataclass(frozen=True, slots=True)
class GatewayVerdict:
    """The result of one evaluation of a gateway."""

    gateway: Gateway
    effect: GatewayEffect | None
    newly_failing: bool


class RecoveryProbe(NamedTuple):
    """A claimed recovery probe: the gateway, the end of the lease and the channel to probe."""

    gateway_id: UUID
    until: datetime
    tries: int
    target: ProbeTarget


async def gateways_to_evaluate(
    connection: Connection,
    now: datetime,
    noted: dict[UUID, GatewayObservation],
    window: timedelta,
    limits: Limits,
) -> list[UUID]:
    """Return the gateways that are to be evaluated now."""
    failing = [id for id, observation in noted.items() if observation.failing is not None]
    answered = [id for id, observation in noted.items() if observation.answered_at is not None]
    renewed = now + limits.hold / 2
    rows = await connection.fetch(
        sql.gateways_to_evaluate, now - LATELY * window, failing, answered, renewed, ENOUGH, now - OBJECTION
    )
    return [row["id"] for row in rows]


async def evaluate(
    connection: Connection,
    gateway_id: UUID,
    now: datetime,
    noted: GatewayObservation,
    window: timedelta,
    limits: Limits,
) -> GatewayVerdict | None:
    """Evaluate a gateway with this process's observation, and write what follows.

    None: its row is locked, or its state is known to a later version only.
    """
    async with connection.transaction():
        row = await connection.fetchrow(sql.lock_gateway_health, gateway_id)
        if row is None or not _is_known(row):
            return None
        before = _gateway(row)
        seen = await _snapshot(connection, gateway_id, now, noted, window, row)
        after, effect = decide(before, seen, limits)
        if after != before:
            await connection.execute(sql.save_gateway_health, gateway_id, *_columns(after))
        await _keep_incident(connection, gateway_id, row, effect, now)
        if isinstance(effect, Up):
            await connection.execute(sql.spread_probes, gateway_id, now, SPREAD * limits.settle)
        return GatewayVerdict(after, effect, before.failing is None and after.failing is not None)


async def _snapshot(
    connection: Connection,
    gateway_id: UUID,
    now: datetime,
    noted: GatewayObservation,
    window: timedelta,
    row: Record,
) -> GatewaySnapshot:
    # Departures before the end of the last incident belong to it; those during an open one still count.
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
                # Channels that leave while it is open belong to it.
                since = row["incident_started_at"]
                await connection.execute(sql.attach_channels, incident_id, gateway_id, since)


async def acknowledge(pool: Pool, reader: UUID | None, incident_id: UUID) -> Record | None:
    """Acknowledge a gateway's incident; return it, or None: there is none for this reader.

    The first time counts. A reader of one tenant sees no gateway's.
    """
    async with writing(pool, reader) as connection:
        return await connection.fetchrow(sql.acknowledge_gateway_incident, incident_id)


async def note_gateway_notified(connection: Connection, message_id: UUID, now: datetime) -> None:
    """Note of the gateways' incidents whose opening a message reports that it was delivered."""
    await connection.execute(sql.note_gateway_notified, message_id, now)


async def hasten_other_probes(
    connection: Connection, gateway_id: UUID, now: datetime, but: Collection[object]
) -> None:
    """Make probes of some other open channels of a gateway due now: do they fail, too?"""
    await connection.execute(sql.hasten_other_probes, gateway_id, now, list(but), ENOUGH)


async def doubt(
    connection: Connection, gateway_ids: Collection[UUID], since: datetime, until: datetime
) -> None:
    """Have nobody blamed until then for the silence of these gateways."""
    await connection.execute(sql.doubt_gateways, list(gateway_ids), since, until)


async def claim_recovery_probes(
    connection: Connection, now: datetime, lease: timedelta, limit: int
) -> list[RecoveryProbe]:
    """Return gateways whose recovery probe is due, each claimed for one replica."""
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
    """Return a channel of each of these gateways to probe, chosen at random."""
    return [
        ProbeTarget(**row)
        for row in await connection.fetch(sql.recovery_probe_targets, list(gateway_ids), AROUND)
    ]


async def end_recovery_probe(
    connection: Connection, recovery_probe: RecoveryProbe, now: datetime, limits: Limits
) -> None:
    """Schedule a gateway's next recovery probe, unless this one has ended otherwise."""
    again_at = now + next_gap(recovery_probe.tries, limits)
    await connection.execute(
        sql.end_recovery_probe, recovery_probe.gateway_id, recovery_probe.until, again_at
    )


async def gateways_elsewhere(
    connection: Connection, providers: Collection[str], but: Collection[UUID], limit: int
) -> list[UUID]:
    """Return some other gateways of these providers with channels to probe, those that are up first."""
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
