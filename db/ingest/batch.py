"""Folds the entries of one transaction into channels, and collects the rows that result; does no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson

from db.codec.channel import channel_of, clock_of, json_of_clock, json_of_rules, text_of
from db.codec.channel_record import ChannelRecord, Memory
from db.codec.rules import IsRecoverable, rules_of
from db.ingest.entry import Entry, HistoryNote, OwnerProfile, ParsedEvent, Source
from db.ingest.event_rows import EventRow, clock_data, event_of, newest_of
from db.reconcile.qr import SHOWN_FOR, KeptQr
from statemachine.clock import Clock, learn
from statemachine.evidence import is_overtaken
from statemachine.model import Channel, Incident, Monitoring, Rules, State, Trigger
from statemachine.signals import (
    Alive,
    Answered,
    Change,
    Configured,
    Deadline,
    Effect,
    GatewaySilence,
    Heard,
    LeftTogether,
    Open,
    RecoveryEnded,
    Resolve,
    Signal,
    Verdict,
)
from statemachine.step import step
from statemachine.verdicts import judge

OF_ANOTHER_GATEWAY: Final = -1
"""A version that no channel has: an answer of a former gateway is dropped, and the channel probed again."""


@dataclass(frozen=True, slots=True)
class PastIncident:
    """An incident that ended; `stored` when its row was there before this batch."""

    incident: Incident
    resolved_at: datetime
    why: str
    alert: bool
    stored: bool


class ChannelFold:
    """One channel while a batch is folded into it, and the rows that result."""

    def __init__(self, row: ChannelRecord, installation: Rules, recoverable: IsRecoverable | None) -> None:
        monitoring = (
            Monitoring.REMOVED
            if row["removed"]
            else Monitoring.PAUSED
            if row["paused"]
            else Monitoring.WATCHED
        )
        self.row: Final = row
        memory: Memory = orjson.loads(row["memory"])
        self.recorded_rules_json: str | None = row["told_rules"]
        """The rules in the newest of the channel's events that has any, for the replay, as JSON."""
        self.before: Final = channel_of(row, memory)
        self.recorded_rules = None if self.recorded_rules_json is None else self.before.rules
        self.rules: Final = rules_of(
            installation,
            row["metadata"],
            row["defaults"],
            monitoring,
            row["configured"],
            None if recoverable is None else recoverable.get(row["provider"], ()),
        )
        self.channel = self.before
        self.events: list[EventRow] = []
        self.stored_event: Final = newest_of(row)
        self.incident_stored = self.before.incident is not None
        self.past: list[PastIncident] = []
        self.must_save = False
        self.details: Mapping[str, object] = memory.get("details", {})
        self.answered = False
        """Whether a probe was answered, so that its claim ends."""
        self.qr: KeptQr | None = None
        """The newest QR of its gateway."""
        self.owner: OwnerProfile | None = None
        """The session's owner, if a webhook of this batch names one."""

    @property
    def last_event(self) -> EventRow | None:
        return self.events[-1] if self.events else self.stored_event

    @property
    def old_incident(self) -> Incident | None:
        """The incident that was open before this batch, as it came to be within it."""
        if self.incident_stored:
            return self.channel.incident
        return next((past.incident for past in self.past if past.stored), None)

    def configure(self, now: datetime) -> None:
        """Bring the channel's rules up to date; the next stored event records them for the replay."""
        if self.channel.rules == self.rules:
            return
        known, version = self.recorded_rules is not None, self.channel.version
        effects = self.step(Configured(now, self.rules))
        if effects or known or self.channel.version != version:
            self.store(EventRow(Source.OPERATOR, "configured", None, None, None, None, None, now, now, ""))

    def step(self, signal: Signal) -> tuple[Effect, ...]:
        self.channel, effects = step(self.channel, signal)
        for effect in effects:
            match effect:
                case Open():
                    self.incident_stored = False
                case Resolve(incident, resolved_at, why, alert):
                    self.past.append(PastIncident(incident, resolved_at, why, alert, self.incident_stored))
                    self.incident_stored = False
                case Change():
                    pass
        return effects

    @property
    def opened(self) -> list[str]:
        """The kinds of the incidents that opened within this batch."""
        new = [past.incident.kind for past in self.past if not past.stored]
        now = self.channel.incident
        return new if now is None or self.incident_stored else [*new, now.kind]

    def show(self, sealed: bytes, issued_at: datetime, now: datetime) -> None:
        """Keep a QR, if it is the newest and can still be scanned: a retried webhook may be late."""
        if issued_at + SHOWN_FOR > now and (self.qr is None or self.qr.issued_at <= issued_at):
            self.qr = KeptQr(sealed, issued_at, issued_at + SHOWN_FOR)

    def learn_owner(self, owner: OwnerProfile | None, emitted_at: datetime) -> None:
        """Keep an open session's owner, after the webhook that names it was applied.

        A webhook from before other evidence may be about an earlier session, on another number: it fills in a
        number that is missing and replaces none.
        """
        if owner is None or self.channel.state is not State.OPEN:
            return
        before = self.owner or OwnerProfile(None)
        is_missing = not (before.phone or self.row["phone_number"])
        if is_missing or not is_overtaken(self.channel.evidence, emitted_at):
            self.owner = OwnerProfile(owner.phone or before.phone, owner.profile or before.profile)

    def store(self, event: EventRow) -> None:
        event.state = self.channel.state
        if self.recorded_rules != self.rules:
            event.data["rules"] = document = json_of_rules(self.rules)
            self.recorded_rules_json, self.recorded_rules = text_of(document), self.rules
        self.events.append(event)


class Batch:
    """The channels of one transaction, by id, and the clocks of their gateways."""

    def __init__(
        self, rows: Iterable[ChannelRecord], installation: Rules, recoverable: IsRecoverable | None = None
    ) -> None:
        self.folds: Final = {row["channel_id"]: ChannelFold(row, installation, recoverable) for row in rows}
        self.known_clocks: Final[dict[UUID, str]] = {
            gateway: clock
            for fold in self.folds.values()
            if (gateway := fold.row["gateway_id"]) is not None and (clock := fold.row["clock"]) is not None
        }
        self.clocks: Final = {gateway: clock_of(text) for gateway, text in self.known_clocks.items()}

    def take(self, entry: Entry, redelivered: bool) -> None:
        """Apply one entry; one for a channel that is gone is skipped."""
        fold = self.folds.get(entry.channel_id)
        if fold is None:
            return
        fold.configure(entry.received_at)
        match entry.content:
            case ParsedEvent():
                self._apply_webhook(fold, entry, entry.content, redelivered)
            case Answered():
                fold.must_save = fold.answered = True
                if entry.gateway_id is not None and entry.gateway_id != fold.row["gateway_id"]:
                    fold.step(replace(entry.content, version=OF_ANOTHER_GATEWAY))
                    return
                _apply_answer(fold, entry, entry.content)
            case Alive():
                _apply_alive(fold, entry, entry.content)
            case Verdict():
                _apply_verdict(fold, entry, entry.content)
            case GatewaySilence():
                _apply_silence(fold, entry, entry.content)
            case LeftTogether():
                _apply_left_together(fold, entry, entry.content)
            case Deadline():
                fold.must_save = True
                _apply_deadline(fold, entry, entry.content)
            case RecoveryEnded():
                _apply_recovery_ended(fold, entry, entry.content)
            case HistoryNote():
                _apply_note(fold, entry, entry.content)
            case _:
                fold.step(entry.content)

    def _apply_webhook(self, fold: ChannelFold, entry: Entry, parsed: ParsedEvent, redelivered: bool) -> None:
        duplicate = next((e for e in fold.events if entry.key is not None and e.key == entry.key), None)
        fresh = not redelivered and duplicate is None
        clock = self._clock(fold, parsed, entry.received_at, fresh)
        at, emitted_at = clock.read(parsed.at, entry.received_at)
        before = fold.channel
        heard = Heard(
            entry.received_at,
            at,
            emitted_at,
            parsed.trigger,
            parsed.reason,
            parsed.status,
            fresh,
            parsed.needs_probe,
            clock.epoch,
        )
        effects = fold.step(heard)
        if duplicate is not None:
            duplicate.deliveries += 1
        if not fresh:
            return
        if entry.qr is not None:
            fold.show(entry.qr, min(emitted_at, entry.received_at), entry.received_at)
        fold.learn_owner(entry.owner, emitted_at)
        event = event_of(entry, parsed.trigger, parsed.reason, parsed.status, at)
        event.data = clock_data(clock)
        event.key = entry.key
        last = fold.last_event
        nothing = not effects and fold.channel.version == before.version and fold.recorded_rules == fold.rules
        if nothing and last is not None and last.is_like(event) and before.evidence.epoch == clock.epoch:
            last.count_on(event)
            if last is fold.stored_event:
                fold.must_save = True
        else:
            fold.store(event)

    def _clock(self, fold: ChannelFold, parsed: ParsedEvent, received_at: datetime, fresh: bool) -> Clock:
        gateway = fold.row["gateway_id"]
        clock = Clock() if gateway is None else self.clocks.get(gateway, Clock())
        if fresh and parsed.at is not None and gateway is not None:
            clock = self.clocks[gateway] = learn(clock, parsed.at, received_at)
        return clock

    def learnt_clocks(self) -> list[tuple[UUID, str, str]]:
        """Return (gateway, clock as read, clock as learnt) for each clock that changed."""
        learnt = (
            (gateway, self.known_clocks[gateway], json_of_clock(c)) for gateway, c in self.clocks.items()
        )
        return sorted((g, known, new) for g, known, new in learnt if clock_of(known) != clock_of(new))


def _apply_deadline(fold: ChannelFold, entry: Entry, content: Deadline) -> None:
    before = fold.channel
    effects = fold.step(
        replace(
            content,
            gateway_failed_at=fold.row["gateway_failed_at"],
            gateway_settles_until=fold.row["gateway_settles_until"],
        )
    )
    after = fold.channel
    if effects or (after.version, after.has_been_open) != (before.version, before.has_been_open):
        event = event_of(entry)
        event.data = {"opened": any(isinstance(effect, Open) for effect in effects) or None}
        fold.store(event)


def _apply_answer(fold: ChannelFold, entry: Entry, answer: Answered) -> None:
    judged = judge(fold.channel, replace(answer, own=_gateway_answers(fold.row, answer.received_at)))
    before = fold.channel
    effects = fold.step(judged)
    if judged.verdict is not None:
        _store_verdict(fold, entry, before, judged.verdict, effects)


def _gateway_answers(row: ChannelRecord, now: datetime) -> bool:
    settles_until = row["gateway_settles_until"]
    return row["gateway_failed_at"] is None and (settles_until is None or settles_until <= now)


def _apply_verdict(fold: ChannelFold, entry: Entry, content: Verdict) -> None:
    before = fold.channel
    effects = fold.step(content)
    _store_verdict(fold, entry, before, content, effects)


def _store_verdict(
    fold: ChannelFold, entry: Entry, before: Channel, verdict: Verdict, effects: tuple[Effect, ...]
) -> None:
    if fold.channel.evidence == before.evidence:
        return
    event = event_of(entry, verdict.trigger, verdict.reason, verdict.status, verdict.began_at)
    fold.details = entry.details
    event.data = {
        **entry.details,
        "dated_at": verdict.dated_at,
        "session_lost": verdict.session_lost or None,
    }
    last = fold.last_event
    if (
        not effects
        and fold.channel.version == before.version
        and fold.channel.lost_until == before.lost_until
        and last is not None
        and last.is_like(event)
    ):
        last.count_on(event)
    else:
        fold.store(event)


def _apply_alive(fold: ChannelFold, entry: Entry, alive: Alive) -> None:
    version = fold.channel.version
    fold.step(alive)
    if fold.channel.version != version:
        fold.store(event_of(entry, Trigger.OPENED, at=alive.emitted_at))
    fold.learn_owner(entry.owner, alive.emitted_at or entry.received_at)


def _apply_silence(fold: ChannelFold, entry: Entry, silence: GatewaySilence) -> None:
    before = fold.channel
    effects = fold.step(silence)
    trouble = fold.channel.evidence.trouble
    if trouble is not None and (effects or fold.channel.evidence != before.evidence):
        event = event_of(entry, Trigger.UNREACHABLE, silence.reason)
        # Since live traffic, which isn't stored, it may be silent for less long than its gateway.
        event.data = {"dated_at": trouble.at}
        fold.details = {}
        fold.store(event)


def _apply_left_together(fold: ChannelFold, entry: Entry, together: LeftTogether) -> None:
    departures = fold.channel.departures
    fold.step(together)
    if fold.channel.departures != departures:
        event = event_of(entry)
        event.data = {"since": together.since, "until": together.until}
        fold.store(event)


def _apply_recovery_ended(fold: ChannelFold, entry: Entry, content: RecoveryEnded) -> None:
    """Record an episode of recovery with actions, or one whose end changes the channel."""
    version = fold.channel.version
    effects = fold.step(content)
    if effects or entry.details or fold.channel.version != version:
        event = event_of(entry)
        event.data = {
            **entry.details,
            "again_at": content.again_at,
            "failed": content.failed or None,
            "ordered": content.ordered or None,
        }
        fold.store(event)


def _apply_note(fold: ChannelFold, entry: Entry, content: HistoryNote) -> None:
    event = event_of(entry)
    event.data = dict(content.details)
    last = fold.last_event
    if last is None or not last.is_like(event):
        fold.store(event)
        return
    last.count_on(event)
    if last is fold.stored_event:
        fold.must_save = True
