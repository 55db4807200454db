"""Gateway health: the rows behind `statemachine.gateway`. THE ONLY writer of its state and incidents.

Decides nothing itself, and calls no gateway. Each evaluation of a gateway is one transaction that locks its
row, so any number of replicas may do it. It waits for no lock: a locked gateway is left to the next round.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from db.connection.tenant_scope import writing
from db.connection.types import Connection, Pool, Record
from db.queries import sql
from db.reconcile.claims import ProbeTarget
from db.reconcile.gateways.causes import attribute_causes, drop_causes
from statemachine.gateway import (
    ENOUGH,
    OBJECTION,
    SILENT,
    Calm,
    Cause,
    Down,
    FailureStreak,
    Gateway,
    GatewayEffect,
    GatewaySnapshot,
    Health,
    Limits,
    Removed,
    Up,
    decide,
    next_gap,
    streak,
    unwatched,
)

LATELY: Final = 2
"""Windows in which departures are counted: a probe finds one some time after it happened."""
SPREAD: Final = 0.8
"""Share of `Limits.settle` over which probes are spread; the rest is for their answers."""
HEALTHS: Final = frozenset(Health)
CAUSES: Final = frozenset(Cause)
KEPT_AS_THEY_ARE: Final = (
    "perhaps_offline", "suspected_at", "try_at", "tries", "tried_at", "lost", "moved_at", "calm_since",
    "settles_until",
)  # fmt: skip
"""Fields of `Gateway` that are columns of the same name and type."""
AROUND: Final = 20
"""Among how many of a gateway's channels the target of a recovery probe is chosen."""


class GatewayObservation(NamedTuple):
    """What one process has seen of a gateway since it last reported."""

    answered_at: datetime | None = None
    failing: FailureStreak | None = None
    offline: bool = False
    """No gateway answered, for longer than that is taken for an outage of our own network."""
    accepted_at: datetime | None = None
    """When it last accepted its own key."""
    accepted_own_at: datetime | None = None
    """When it last accepted a channel's own key."""
    refusing: FailureStreak | None = None
    """Probes whose key it refused."""


class LeavingTogether(NamedTuple):
    """Channels of a gateway that left open together, back or not, and within which time."""

    since: datetime
    until: datetime
    channel_ids: list[UUID]


@dataclass(frozen=True, slots=True)
class GatewayVerdict:
    """The result of one evaluation of a gateway."""

    gateway: Gateway
    effect: GatewayEffect | None
    newly_blamed_by: Collection[Hashable]
    """Channels whose probes failed or were refused, where none had before: others are to be asked at once."""
    left_together: LeavingTogether | None = None
    """Channels that are to be told so."""


class RecoveryProbe(NamedTuple):
    """A claimed recovery probe: the gateway, the end of the lease and the channel to probe."""

    gateway_id: UUID
    until: datetime
    tries: int
    target: ProbeTarget


async def gateways_to_evaluate(
    connection: Connection, now: datetime, noted: dict[UUID, GatewayObservation], limits: Limits
) -> dict[UUID, bool]:
    """Return the gateways that are to be evaluated now, and whether each may be a little later."""
    failing = [id for id, it in noted.items() if it.failing is not None or it.refusing is not None]
    answered = [id for id, it in noted.items() if it.answered_at or it.accepted_at or it.accepted_own_at]
    left_after, stable = now - LATELY * limits.window, now - limits.stable
    rows = await connection.fetch(
        sql.gateways_to_evaluate, left_after, failing, answered, ENOUGH, stable, now - OBJECTION
    )
    return {row["id"]: row["patient"] and row["id"] not in failing for row in rows}


async def evaluate(
    connection: Connection, gateway_id: UUID, now: datetime, noted: GatewayObservation, limits: Limits
) -> GatewayVerdict | None:
    """Evaluate a gateway with this process's observation, and write what follows.

    None: its row is locked, or its state is known to a later version only.
    """
    async with connection.transaction():
        row = await connection.fetchrow(sql.lock_gateway_health, gateway_id)
        if row is None or not _is_known(row):
            return None
        before = _gateway(row)
        seen, together = await _snapshot(connection, gateway_id, now, noted, before, row, limits)
        after, effect = decide(before, seen, limits) if row["is_watched"] else unwatched(before)
        if after != before:
            await connection.execute(sql.save_gateway_health, gateway_id, *_columns(after))
        await _keep_incident(connection, gateway_id, row, effect, seen, limits)
        if effect is None and before.perhaps_offline and not after.perhaps_offline:
            await connection.execute(sql.note_we_are_online, row["incident_id"])
        return GatewayVerdict(after, effect, _newly_blamed_by(before, after), together)


def _newly_blamed_by(before: Gateway, after: Gateway) -> Collection[Hashable]:
    """Return the channels whose probes began to fail, or to be refused: what do the others say?"""
    pairs = (before.failing, after.failing), (before.refusing, after.refusing)
    return {channel for old, new in pairs if old is None and new is not None for channel in new.channels}


async def _snapshot(
    connection: Connection,
    gateway_id: UUID,
    now: datetime,
    noted: GatewayObservation,
    gateway: Gateway,
    row: Record,
    limits: Limits,
) -> tuple[GatewaySnapshot, LeavingTogether | None]:
    left_after = now - LATELY * limits.window
    if gateway.health is Health.UP and gateway.since is not None and gateway.falls:
        # Departures before the end of a silence belong to it.
        left_after = max(left_after, gateway.since)
    incident_id = row["incident_id"] if gateway.cause is Cause.MASS_LOSS else None
    failed = {channel for one in (noted.failing, noted.refusing) if one for channel in one.channels}
    if gateway.refusing is not None:
        failed.update(gateway.refusing.channels)
    is_failing = bool(failed or gateway.failing)
    counts = await connection.fetchrow(
        sql.count_gateway_losses, gateway_id, left_after, limits.window, now - limits.away, incident_id,
        ENOUGH, row["together_until"] or left_after, list(failed), is_failing,
    )  # fmt: skip
    assert counts is not None
    witnesses = frozenset(counts["witnesses"])
    seen = GatewaySnapshot(
        now,
        noted.answered_at,
        noted.failing and noted.failing.of(witnesses),
        noted.offline,
        noted.accepted_at,
        noted.accepted_own_at,
        noted.refusing and noted.refusing.of(witnesses),
        frozenset(counts["by_gateway_key"]),
        *(counts[name] for name in ("probed", "unkeyed", "watched", "left", "left_since", "lost")),
    )
    if counts["together"] < seen.mass_loss_at:
        return seen, None
    return seen, await _left_together(connection, gateway_id, counts, row["together_until"] or left_after)


async def _left_together(
    connection: Connection, gateway_id: UUID, counts: Record, after: datetime
) -> LeavingTogether:
    since, until = counts["together_since"], counts["together_until"]
    rows = await connection.fetch(sql.left_together, gateway_id, since, until, after)
    return LeavingTogether(since, until, [row["channel_id"] for row in rows])


async def note_left_together(connection: Connection, gateway_id: UUID, until: datetime) -> None:
    """Note up to which departure the channels of a gateway were told that they left together."""
    await connection.execute(sql.note_left_together, gateway_id, until)


async def _keep_incident(
    connection: Connection,
    gateway_id: UUID,
    row: Record,
    effect: GatewayEffect | None,
    seen: GatewaySnapshot,
    limits: Limits,
) -> None:
    incident_id, cause, now = row["incident_id"], row["cause"], seen.now
    match effect:
        case Down():
            incident_id = await _open_incident(connection, gateway_id, effect, now, limits)
            if effect.cause in SILENT:
                await connection.execute(sql.attach_channels, incident_id, gateway_id)
                await connection.execute(sql.begin_verdicts, incident_id, gateway_id, effect.started_at, now)
            elif effect.cause is Cause.UNAUTHORIZED:
                await connection.execute(sql.attach_channels, incident_id, gateway_id)
            else:
                await _attach_lost(connection, gateway_id, incident_id, effect.started_at, now - limits.away)
            await attribute_causes(connection, incident_id)
        case Calm() | Up():
            await connection.execute(sql.cancel_verdicts, incident_id)
            if isinstance(effect, Up):
                await connection.execute(sql.resolve_gateway_incident, incident_id, now, None)
            if row["calm_since"] is not None:
                return
            if cause == Cause.MASS_LOSS:
                await drop_causes(connection, [gateway_id])
            else:
                await connection.execute(sql.spread_probes, gateway_id, now, SPREAD * limits.settle)
        case Removed():
            await connection.execute(sql.cancel_verdicts, incident_id)
            await connection.execute(sql.resolve_gateway_incident, incident_id, now, "removed")
            await drop_causes(connection, [gateway_id])
        case None:
            if cause == Cause.MASS_LOSS and row["calm_since"] is None and _goes_on(seen):
                # Channels that leave while it goes on belong to it.
                since = row["incident_started_at"]
                if await _attach_lost(connection, gateway_id, incident_id, since, now - limits.away):
                    await attribute_causes(connection, incident_id)


def _goes_on(seen: GatewaySnapshot) -> bool:
    return max(seen.lost, seen.left) >= seen.mass_loss_at


async def _open_incident(
    connection: Connection, gateway_id: UUID, down: Down, now: datetime, limits: Limits
) -> UUID:
    flags = {"perhaps_offline": down.perhaps_offline, "flapping": down.flapping}
    details = orjson.dumps({name: True for name, is_set in flags.items() if is_set}).decode()
    told_at = down.started_at + limits.tell_after
    incident_id: UUID = await connection.fetchval(
        sql.open_gateway_incident, gateway_id, down.cause, details, down.started_at, now, told_at
    )
    return incident_id


async def _attach_lost(
    connection: Connection, gateway_id: UUID, incident_id: UUID, since: datetime, until: datetime
) -> bool:
    affected = await connection.fetchval(sql.attach_lost_channels, incident_id, gateway_id, since, until)
    return affected is not None


async def settle(connection: Connection, now: datetime) -> None:
    """Take the cause from incidents of channels that are still down after their gateway has settled."""
    async with connection.transaction():
        rows = await connection.fetch(sql.claim_settled_gateways, now)
        await drop_causes(connection, [row["id"] for row in rows])


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


async def note_trial(connection: Connection, gateway_id: UUID, began_at: datetime, failed: bool) -> None:
    """Note that a recovery probe's result is known, whoever is to blame for a failure."""
    await connection.execute(sql.note_trial, gateway_id, began_at, failed)


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
    failing = refusing = None
    if row["failing_since"] is not None:
        failing = streak(
            row["failing_since"], row["failed_at"], row["failed"], row["failures"], row["unavailable"]
        )
    if row["refusing_since"] is not None:
        refusing = streak(row["refusing_since"], row["refused_at"], row["refused"], row["refusals"])
    return Gateway(
        health=Health(row["state"]),
        since=row["since"],
        cause=None if row["cause"] is None else Cause(row["cause"]),
        failing=failing,
        refusing=refusing,
        falls=tuple(row["falls"]),
        **{name: row[name] for name in KEPT_AS_THEY_ARE},
    )


def _columns(gateway: Gateway) -> tuple[object, ...]:
    failing, refusing = gateway.failing, gateway.refusing
    return (
        gateway.health,
        gateway.since,
        failing and failing.since,
        failing and failing.last_at,
        list(failing.channels[:ENOUGH]) if failing else [],
        failing.times if failing else 0,
        failing.unavailable if failing else 0,
        gateway.perhaps_offline,
        gateway.suspected_at,
        refusing and refusing.since,
        refusing and refusing.last_at,
        list(refusing.channels[:ENOUGH]) if refusing else [],
        refusing.times if refusing else 0,
        gateway.try_at,
        gateway.tries,
        gateway.tried_at,
        gateway.lost,
        gateway.moved_at,
        gateway.calm_since,
        gateway.settles_until,
        list(gateway.falls),
    )
