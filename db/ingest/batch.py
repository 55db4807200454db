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
from statemachine.model import Incident, Monitoring, Rules, State, Trigger
from statemachine.signals import (
    Alive,
    Answered,
    Change,
    Configured,
    Deadline,
    Effect,
    Heard,
    Open,
    RecoveryEnded,
    Resolve,
    Signal,
    Verdict,
)
from statemachine.step import step, verdict_of

OF_ANOTHER_GATEWAY: Final = -1
"""A version that no channel has: an answer of the gateway of before is dropped, and asked for anew."""


@dataclass(frozen=True, slots=True)
class PastIncident:
    """An incident that ended; `stored` when its row was there before this batch."""

    incident: Incident
    resolved_at: datetime
    why: str
    tell: bool
    stored: bool


class ChannelFold:
    """One channel's way through a batch."""

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
        self.told: str | None = row["told_rules"]
        """The rules that the channel's events have told the replay last, as JSON."""
        self.before: Final = channel_of(row, memory)
        self.told_rules = None if self.told is None else self.before.rules
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
        """The newest QR that its gateway showed."""
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
        """Bring the channel's rules up to date; the next stored event tells them to the replay."""
        if self.channel.rules == self.rules:
            return
        known, version = self.told_rules is not None, self.channel.version
        effects = self.step(Configured(now, self.rules))
        if effects or known or self.channel.version != version:
            self.store(EventRow(Source.OPERATOR, "configured", None, None, None, None, None, now, now, ""))

    def step(self, signal: Signal) -> tuple[Effect, ...]:
        self.channel, effects = step(self.channel, signal)
        for effect in effects:
            match effect:
                case Open():
                    self.incident_stored = False
                case Resolve(incident, resolved_at, why, tell):
                    self.past.append(PastIncident(incident, resolved_at, why, tell, self.incident_stored))
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
        """Take note of a QR, if it is the newest and can still be scanned: a retry may bring it late."""
        if issued_at + SHOWN_FOR > now and (self.qr is None or self.qr.issued_at <= issued_at):
            self.qr = KeptQr(sealed, issued_at, issued_at + SHOWN_FOR)

    def learn_owner(self, owner: OwnerProfile | None, emitted_at: datetime) -> None:
        """Take note of an open session's owner, after the webhook that names it was applied.

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
        if self.told_rules != self.rules:
            event.data["rules"] = document = json_of_rules(self.rules)
            self.told, self.told_rules = text_of(document), self.rules
        self.events.append(event)


class Batch:
    """The channels of one transaction, by id, and the clocks of their gateways."""

    def __init__(
        self, rows: Iterable[ChannelRecord], installation: Rules, recoverable: IsRecoverable | None = None
    ) -> None:
        self.tracks: Final = {row["channel_id"]: ChannelFold(row, installation, recoverable) for row in rows}
        self.known_clocks: Final[dict[UUID, str]] = {
            gateway: clock
            for track in self.tracks.values()
            if (gateway := track.row["gateway_id"]) is not None and (clock := track.row["clock"]) is not None
        }
        self.clocks: Final = {gateway: clock_of(text) for gateway, text in self.known_clocks.items()}

    def take(self, entry: Entry, redelivered: bool) -> None:
        """Apply one entry; one for a channel that is gone is passed over."""
        track = self.tracks.get(entry.channel_id)
        if track is None:
            return
        track.configure(entry.received_at)
        match entry.said:
            case ParsedEvent():
                self._hear(track, entry, entry.said, redelivered)
            case Answered():
                track.must_save = track.answered = True
                if entry.gateway_id is not None and entry.gateway_id != track.row["gateway_id"]:
                    track.step(replace(entry.said, version=OF_ANOTHER_GATEWAY))
                    return
                _answer(track, entry, entry.said)
            case Alive():
                _answer(track, entry, entry.said)
                track.learn_owner(entry.owner, entry.said.emitted_at or entry.received_at)
            case Verdict():
                _answer(track, entry, entry.said)
            case Deadline():
                track.must_save = True
                _fall_due(track, entry, entry.said)
            case RecoveryEnded():
                _end_recovery(track, entry, entry.said)
            case HistoryNote():
                _note(track, entry, entry.said)
            case _:
                track.step(entry.said)

    def _hear(self, track: ChannelFold, entry: Entry, told: ParsedEvent, redelivered: bool) -> None:
        twin = next((e for e in track.events if entry.key is not None and e.key == entry.key), None)
        fresh = not redelivered and twin is None
        clock = self._clock(track, told, entry.received_at, fresh)
        at, emitted_at = clock.read(told.at, entry.received_at)
        before = track.channel
        heard = Heard(
            entry.received_at,
            at,
            emitted_at,
            told.trigger,
            told.reason,
            told.status,
            fresh,
            told.needs_probe,
            clock.epoch,
        )
        effects = track.step(heard)
        if twin is not None:
            twin.deliveries += 1
        if not fresh:
            return
        if entry.qr is not None:
            track.show(entry.qr, min(emitted_at, entry.received_at), entry.received_at)
        track.learn_owner(entry.owner, emitted_at)
        event = event_of(entry, told.trigger, told.reason, told.status, at)
        event.data = clock_data(clock)
        event.key = entry.key
        last = track.last_event
        nothing = not effects and track.channel.version == before.version and track.told_rules == track.rules
        if nothing and last is not None and last.is_like(event) and before.evidence.epoch == clock.epoch:
            last.count_on(event)
            if last is track.stored_event:
                track.must_save = True
        else:
            track.store(event)

    def _clock(self, track: ChannelFold, told: ParsedEvent, received_at: datetime, fresh: bool) -> Clock:
        gateway = track.row["gateway_id"]
        clock = Clock() if gateway is None else self.clocks.get(gateway, Clock())
        if fresh and told.at is not None and gateway is not None:
            clock = self.clocks[gateway] = learn(clock, told.at, received_at)
        return clock

    def learnt_clocks(self) -> list[tuple[UUID, str, str]]:
        """Return (gateway, clock as read, clock as learnt) for each clock that changed."""
        learnt = (
            (gateway, self.known_clocks[gateway], json_of_clock(c)) for gateway, c in self.clocks.items()
        )
        return sorted((g, known, new) for g, known, new in learnt if clock_of(known) != clock_of(new))


def _fall_due(track: ChannelFold, entry: Entry, said: Deadline) -> None:
    held_until, before = track.row["held_until"], track.channel
    effects = track.step(replace(said, held_until=held_until, doubted_until=track.row["doubted_until"]))
    after = track.channel
    forgiven = before.flap is not None and after.flap is None and not effects
    if effects or forgiven or after.version != before.version:
        waits_until = after.not_before if after.not_before != before.not_before else None
        event = event_of(entry)
        event.data = {
            "opened": any(isinstance(effect, Open) for effect in effects) or None,
            "held_until": held_until if forgiven else waits_until,
        }
        track.store(event)


def _answer(track: ChannelFold, entry: Entry, said: Alive | Answered | Verdict) -> None:
    verdict = verdict_of(track.channel, said) if isinstance(said, Answered) else said
    before = track.channel
    effects = track.step(said)
    if isinstance(verdict, Verdict) and track.channel.evidence != before.evidence:
        event = event_of(entry, verdict.trigger, verdict.reason, verdict.status, verdict.began_at)
        track.details = entry.details
        event.data = {
            **entry.details,
            "dated_at": verdict.dated_at,
            "session_lost": verdict.session_lost or None,
        }
        last = track.last_event
        if (
            not effects
            and track.channel.version == before.version
            and track.channel.lost_until == before.lost_until
            and last is not None
            and last.is_like(event)
        ):
            last.count_on(event)
        else:
            track.store(event)
    elif isinstance(said, Alive) and track.channel.version != before.version:
        track.store(event_of(entry, Trigger.OPENED))


def _end_recovery(track: ChannelFold, entry: Entry, said: RecoveryEnded) -> None:
    """Note what recovery did; that it may do nothing is no event, unless that moves the channel."""
    version = track.channel.version
    effects = track.step(said)
    if effects or entry.details or track.channel.version != version:
        event = event_of(entry)
        event.data = {**entry.details, "again_at": said.again_at, "failed": said.failed or None}
        track.store(event)


def _note(track: ChannelFold, entry: Entry, said: HistoryNote) -> None:
    event = event_of(entry)
    event.data = dict(said.details)
    last = track.last_event
    if last is None or not last.is_like(event):
        track.store(event)
        return
    last.count_on(event)
    if last is track.stored_event:
        track.must_save = True
