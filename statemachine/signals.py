"""What goes into a channel (signals) and what comes out of it (effects), as frozen values.

`received_at` and everything else ending in `_at` is our own clock; only `Heard.at` is the gateway's.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from statemachine.model import Incident, ProbeStreak, Reason, Rules, Trigger


class Heard(NamedTuple):
    """A webhook. `trigger` None: an event that carries no information about the session."""

    received_at: datetime
    at: datetime
    """The gateway's own time of the event."""
    emitted_at: datetime
    """`at` by our clock, as far as the gateway's offset is known."""
    trigger: Trigger | None
    reason: Reason | None = None
    status: int | None = None
    fresh: bool = True
    """False for a redelivery."""
    needs_probe: bool = False
    """The gateway is known to send this by mistake: a probe has to confirm it at once."""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Alive:
    """Live inbound traffic: proof that messages arrive."""

    received_at: datetime
    emitted_at: datetime | None = None
    """When the gateway sent it, by our clock, as far as that is known; None: when it arrived."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one probe; it may need others like it to complete a probe streak."""

    received_at: datetime
    began_at: datetime
    version: int
    """The channel's version when the probe began."""
    trigger: Trigger
    reason: Reason | None = None
    status: int | None = None
    certain: bool = False
    """True when this answer needs no second one like it; of `opened`, when the session is proven to work."""
    counted_from: datetime | None = None
    """When the first of several such probes began, if the caller has counted them."""
    session_lost: bool = False
    """A drop that does not end by itself: it needs a restart, or else a new scan."""
    own: bool = False
    """The gateway answers for others by now: its silence about this channel is the channel's own trouble."""
    jitter: float = 1.0
    """Factor of the gap to the next probe, so that the probes of channels spread."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a complete probe streak; dated when the streak began."""

    received_at: datetime
    dated_at: datetime
    began_at: datetime
    trigger: Trigger
    reason: Reason | None = None
    status: int | None = None
    session_lost: bool = False


class Judged(NamedTuple):
    """The answer to one probe with what it is worth: a verdict, or a probe streak that needs more like it."""

    answer: Answered
    verdict: Verdict | None
    probe_streak: ProbeStreak | None

    @property
    def received_at(self) -> datetime:
        return self.answer.received_at


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time of a deadline has come."""

    received_at: datetime
    certain: bool = False
    """The evidence was found good enough: a replay of the deadline that opened an incident."""
    queued: bool = False
    """The channel is being probed, or is due while its gateway has no free concurrency slot."""
    gateway_failed_at: datetime | None = None
    """When the newest trial of the channel's gateway began that failed, while it is down; None: it isn't."""
    gateway_settles_until: datetime | None = None
    """Until then the channels of a gateway that is back are asked one after the other."""


@dataclass(frozen=True, slots=True)
class GatewaySilence:
    """The verdict on a channel's gateway: it answers nobody, or only that it is unavailable."""

    received_at: datetime
    since: datetime
    """When the silence began, by our clock."""
    reason: Reason
    """`gateway_unreachable` or `gateway_unavailable`."""


@dataclass(frozen=True, slots=True)
class LeftTogether:
    """Enough channels of one gateway left open within this time to make a mass loss, back or not."""

    received_at: datetime
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class RecoveryEnded:
    """An episode of recovery ended. Whether the channel has recovered is for a probe to decide."""

    received_at: datetime
    again_at: datetime
    """From when on another recovery action may be ordered."""
    failed: bool
    """No further action follows soon: a session that is still lost counts as unpaired."""
    ordered: bool = False
    """The gateway was given an order, so that the channel may have left open by it."""


@dataclass(frozen=True, slots=True)
class Configured:
    """An operator changed the rules: these hold from now on."""

    received_at: datetime
    rules: Rules


@dataclass(frozen=True, slots=True)
class IncidentOpened:
    """Another application opened or changed the incident through the public SQL function."""

    received_at: datetime
    kind: str
    last_state: str | None = None


@dataclass(frozen=True, slots=True)
class IncidentResolved:
    """Another application resolved the incident through the public SQL function."""

    received_at: datetime


Signal = (
    Heard
    | Alive
    | Answered
    | Judged
    | Verdict
    | Deadline
    | GatewaySilence
    | LeftTogether
    | RecoveryEnded
    | Configured
    | IncidentOpened
    | IncidentResolved
)


@dataclass(frozen=True, slots=True)
class Open:
    """Effect: this incident opens now."""

    incident: Incident


@dataclass(frozen=True, slots=True)
class Change:
    """Effect: the kind or the reason of the open incident changed."""

    incident: Incident


@dataclass(frozen=True, slots=True)
class Resolve:
    """Effect: the incident ends. `why`: `recovered`, `stable`, `never_connected` or `channel_removed`."""

    incident: Incident
    resolved_at: datetime
    why: str
    alert: bool = True
    """Whether the end causes an alert."""


Effect = Open | Change | Resolve
