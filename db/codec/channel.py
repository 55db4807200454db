"""Channels, rules and clocks to and from their rows; knows columns, no SQL and no connection.

The row keeps what is queried in columns and the rest in `memory`, one JSON document for operators to read:
evidence, departures and probe streak. The rules last recorded have a column of their own.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

import orjson

from db.codec.channel_record import (
    ChannelRecord,
    Memory,
    WrittenDeparture,
    WrittenEvidence,
    WrittenProbeStreak,
    WrittenTrouble,
)
from db.connection import json_columns
from statemachine.clock import Clock
from statemachine.model import (
    Channel,
    Departure,
    Evidence,
    Incident,
    Logout,
    Monitoring,
    ProbeStreak,
    Reason,
    RecoverableCondition,
    Rules,
    State,
    Status,
    Trigger,
    Trouble,
    Wait,
    Witness,
)

STATES: Final = {state.value: state for state in State}
TRIGGERS: Final = {trigger.value: trigger for trigger in Trigger}
REASONS: Final[Mapping[str | None, Reason]] = {reason.value: reason for reason in Reason}
RECOVERABLE_CONDITIONS: Final = {condition.value: condition for condition in RecoverableCondition}


def state_of(name: str) -> State:
    """Return the state of this name; one that only a later version knows is unknown."""
    return STATES.get(name, State.UNKNOWN)


def reason_of(name: str | None) -> Reason | None:
    """Return the reason of this name, None without one; one that only a later version knows is unknown."""
    return None if name is None else REASONS.get(name, Reason.UNKNOWN)


def when(text: str | None) -> datetime | None:
    """Return the time written as RFC 3339, or None."""
    return None if text is None else datetime.fromisoformat(text)


def channel_of(row: ChannelRecord, memory: Memory) -> Channel:
    """Return the channel of a row of `read_channels`, with the rules recorded in its events.

    `memory` is the row's column of that name, read.
    """
    probe_streak, since = memory.get("suspicion"), when(memory.get("awaiting_probe_since"))
    status = Status(state_of(row["state"]), reason_of(row["reason"]), row["status"])
    return Channel(
        rules=Rules() if row["told_rules"] is None else rules_of_text(row["told_rules"]),
        evidence=evidence_of(memory.get("evidence"), status),
        status=status,
        version=row["version"],
        since=row["since"],
        first_unhealthy_at=row["first_unhealthy_at"],
        terminal_at=when(memory.get("terminal_at")),
        has_been_open=memory.get("has_been_open", False),
        logouts=tuple(
            Logout(datetime.fromisoformat(emitted_at), datetime.fromisoformat(received_at))
            for emitted_at, received_at in memory.get("logouts", ())
        ),
        ended_by_api=tuple(datetime.fromisoformat(at) for at in memory.get("ended_by_api", ())),
        fault_at=when(memory.get("fault_at")),
        departures=tuple(departures_of(memory.get("departures", ()))),
        left_at=when(memory.get("left_at")),
        emitted_at=row["emitted_at"],
        probe_streak=None if probe_streak is None else probe_streak_of(probe_streak),
        probes=memory.get("probes", 0),
        last_event_at=row["last_event_at"],
        fresh_at=row["fresh_at"],
        probed_at=row["probed_at"],
        awaiting_probe=Wait(since, when(memory.get("awaiting_probe_until"))) if since else None,
        due_at=row["due_at"],
        probe_due_at=row["probe_due_at"],
        lost_until=when(memory.get("lost_until")),
        recovery_due_at=row["recovery_due_at"],
        incident=incident_of(row),
    )


def memory_of(channel: Channel, details: Mapping[str, object]) -> str:
    """Return as JSON the fields that have no column, empty ones left out."""
    wait = channel.awaiting_probe
    memory = {
        "evidence": json_of_evidence(channel.evidence),
        "terminal_at": channel.terminal_at,
        "has_been_open": channel.has_been_open,
        "logouts": [tuple(logout) for logout in channel.logouts],
        "ended_by_api": channel.ended_by_api,
        "fault_at": channel.fault_at,
        "departures": [(one.at, one.back_at, *one.status) for one in channel.departures],
        "left_at": channel.left_at,
        "emitted_at": channel.emitted_at,
        "suspicion": channel.probe_streak,
        "probes": channel.probes,
        "awaiting_probe_since": wait.since if wait else None,
        "awaiting_probe_until": wait.until if wait else None,
        "lost_until": channel.lost_until,
        "details": details,
    }
    return orjson.dumps({name: value for name, value in memory.items() if value}).decode()


def departures_of(documents: Iterable[WrittenDeparture | str]) -> Iterator[Departure]:
    """Yield departures from open. Those that earlier versions wrote, as bare times, are left out."""
    for document in documents:
        if not isinstance(document, str):
            at, back_at, state, reason, code = document
            yield Departure(
                datetime.fromisoformat(at), Status(state_of(state), reason_of(reason), code), when(back_at)
            )


def evidence_of(document: WrittenEvidence | None, status: Status) -> Evidence:
    """Return the evidence written by `json_of_evidence`; without one, the status is its base."""
    if document is None:
        return Evidence(status)
    state, reason, code = document["base"]
    trouble = document.get("trouble")
    return Evidence(
        base=Status(state_of(state), reason_of(reason), code),
        witnesses=tuple(
            Witness(
                datetime.fromisoformat(at),
                datetime.fromisoformat(received_at),
                datetime.fromisoformat(emitted_at),
                TRIGGERS[trigger],
                reason_of(reason),
                code,
            )
            for at, received_at, emitted_at, trigger, reason, code in document.get("witnesses", ())
            # Triggers of a later version are unknown here.
            if trigger in TRIGGERS
        ),
        settled_at=when(document.get("settled_at")),
        qr_at=when(document.get("qr_at")),
        epoch=document.get("epoch", 0),
        trouble=None if trouble is None else trouble_of(trouble),
    )


def trouble_of(document: WrittenTrouble) -> Trouble | None:
    """Return trouble of the gateway; None if only a later version knows its trigger."""
    at, trigger, reason, code = document
    if trigger not in TRIGGERS:
        return None
    return Trouble(datetime.fromisoformat(at), TRIGGERS[trigger], reason_of(reason), code)


def json_of_evidence(evidence: Evidence) -> dict[str, object]:
    """Return the evidence as JSON values; times stay datetimes, which orjson writes."""
    document = {
        "base": tuple(evidence.base),
        "witnesses": [tuple(witness) for witness in evidence.witnesses],
        "settled_at": evidence.settled_at,
        "qr_at": evidence.qr_at,
        "epoch": evidence.epoch,
        "trouble": evidence.trouble and tuple(evidence.trouble),
    }
    return {name: value for name, value in document.items() if value}


def probe_streak_of(document: WrittenProbeStreak) -> ProbeStreak:
    """Return the answers counted so far."""
    return ProbeStreak(
        document["kind"],
        document["count"],
        datetime.fromisoformat(document["first_at"]),
        datetime.fromisoformat(document["last_at"]),
    )


def incident_of(row: ChannelRecord) -> Incident | None:
    """Return the open incident joined to a channel's row, this service's or another application's."""
    if row["incident_kind"] is None:
        return None
    details = json_columns.load(row["incident_details"])  # other applications write it too
    details = details if isinstance(details, dict) else {}
    reason, status = details.get("reason"), details.get("status")
    return Incident(
        kind=row["incident_kind"],
        last_state=row["incident_last_state"],
        started_at=row["incident_started_at"],
        opened_at=row["incident_opened_at"] or row["incident_started_at"],
        reason=REASONS.get(reason) if isinstance(reason, str) else None,
        status=status if isinstance(status, int) else None,
        flapping=details.get("flapping") is True,
        departures=departures if isinstance(departures := details.get("departures"), int) else 0,
    )


def details_of(incident: Incident, facts: Mapping[str, object], resolved: str | None = None) -> str:
    """Return the details as JSON: the probe's further facts, and why the incident was resolved."""
    details = {
        **facts,
        "reason": incident.reason,
        "status": incident.status,
        "flapping": incident.flapping or None,
        "departures": incident.departures or None,
        **end_of(resolved),
    }
    return orjson.dumps({name: value for name, value in details.items() if value is not None}).decode()


def end_of(why: str | None) -> dict[str, object]:
    """Return what an incident's details say of its end; None: it is open."""
    return {"resolved": why, "resolved_by": why if why == "never_connected" else None}


def json_of_rules(rules: Rules) -> dict[str, object]:
    """Return the rules as JSON values, durations in seconds."""
    return {
        "threshold": rules.threshold.total_seconds(),
        "terminal_grace": rules.terminal_grace.total_seconds(),
        "terminal_waits": rules.terminal_waits,
        "stale_after": rules.stale_after.total_seconds(),
        "retry_after": rules.retry_after.total_seconds(),
        "probe_wait": None if rules.probe_wait is None else rules.probe_wait.total_seconds(),
        "recovery": rules.recovery,
        "curable": rules.recoverable,
        "recovery_wait": rules.recovery_wait.total_seconds(),
        "stuck_after": rules.stuck_after.total_seconds(),
        "counted_after": rules.counted_after.total_seconds(),
        "monitoring": rules.monitoring.value,
        "configured": rules.configured,
    }


def rules_of_json(document: Mapping[str, object]) -> Rules:
    """Return the rules written by `json_of_rules`."""
    return rules_of_text(text_of(document))


def text_of(document: Mapping[str, object]) -> str:
    """Return rules as `json_of_rules` has them as one text, for `rules_of_text`."""
    return orjson.dumps(document).decode()


@lru_cache(maxsize=1024)
def rules_of_text(text: str) -> Rules:
    """Return the rules written as JSON; those of earlier versions lack some durations."""
    document = orjson.loads(text)
    wait = document["probe_wait"]
    durations = {
        name: timedelta(seconds=document[name])
        for name in ("recovery_wait", "stuck_after", "counted_after")
        if name in document
    }
    return Rules(
        threshold=timedelta(seconds=document["threshold"]),
        terminal_grace=timedelta(seconds=document["terminal_grace"]),
        terminal_waits=document["terminal_waits"],
        stale_after=timedelta(seconds=document["stale_after"]),
        retry_after=timedelta(seconds=document["retry_after"]),
        probe_wait=None if wait is None else timedelta(seconds=wait),
        recovery=document["recovery"],
        recoverable=tuple(
            RECOVERABLE_CONDITIONS[name]
            for name in document.get("curable", ())
            if name in RECOVERABLE_CONDITIONS
        ),
        **durations,
        monitoring=Monitoring(document["monitoring"]),
        configured=document["configured"],
    )


def clock_of(text: str) -> Clock:
    """Return the clock written by `json_of_clock`."""
    document = orjson.loads(text)
    return Clock(
        offset=_seconds(document.get("offset")),
        best=_seconds(document.get("best")),
        window_at=when(document.get("window_at")),
        pending_step=_seconds(document.get("suspect")),
        pending_step_at=when(document.get("suspect_at")),
        epoch=document.get("epoch", 0),
    )


def json_of_clock(clock: Clock) -> str:
    """Return a gateway's clock as JSON, durations in seconds."""
    document = {
        "offset": clock.offset,
        "best": clock.best,
        "window_at": clock.window_at,
        "suspect": clock.pending_step,
        "suspect_at": clock.pending_step_at,
        "epoch": clock.epoch,
    }
    return orjson.dumps(
        {name: value for name, value in document.items() if value is not None},
        default=lambda duration: duration.total_seconds(),
    ).decode()


def _seconds(number: float | None) -> timedelta | None:
    return None if number is None else timedelta(seconds=number)
