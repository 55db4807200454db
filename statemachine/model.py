"""The domain's terms as frozen values; holds no behaviour beyond naming them.

Named tuples, for they are compared and replaced with every event, which costs a dataclass several times as
much. All times are aware datetimes. Everything ending in `_at` is our own clock; only `Witness.at` is the
gateway's, which orders its events and dates nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple


class State(StrEnum):
    """A channel's state. `disconnected` has two children; the world is shown only the parent."""

    UNKNOWN = "unknown"
    OPEN = "open"
    CONNECTING = "connecting"
    QR_PENDING = "qr_pending"
    DROPPED = "disconnected/dropped"
    UNPAIRED = "disconnected/unpaired"
    ERROR = "error"

    shown: str
    """The state's name for users, tables and scripts."""

    def __init__(self, value: str) -> None:
        self.shown = value.partition("/")[0]


class Trigger(StrEnum):
    """What a piece of evidence says about the session, independent of the provider and the source."""

    OPENED = "opened"
    CONNECTING = "connecting"
    QR_ISSUED = "qr_issued"
    DROPPED = "dropped"
    UNPAIRED = "unpaired"
    SESSION_MISSING = "session_missing"
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    NOT_LOADED = "not_loaded"
    DEAF = "deaf"


class Reason(StrEnum):
    """Why a channel is not open. A closed, public list."""

    LOGGED_OUT = "logged_out"
    LOGGED_OUT_BY_API = "logged_out_by_api"
    BANNED = "banned"
    BANNED_TEMPORARILY = "banned_temporarily"
    QR_LIMIT = "qr_limit"
    SCAN_NEEDED = "scan_needed"
    INSTANCE_REMOVED = "instance_removed"
    SESSION_MISSING = "session_missing"
    EXPIRED = "expired"

    CONNECTION_LOST = "connection_lost"
    CONNECTION_CLOSED = "connection_closed"
    CONNECTION_REPLACED = "connection_replaced"
    RESTART_REQUIRED = "restart_required"
    BAD_SESSION = "bad_session"
    DISCONNECTED = "disconnected"
    INCOMPLETE_SESSION = "incomplete_session"
    CONNECTING = "connecting"
    QR_SHOWN = "qr_shown"

    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    NOT_LOADED = "not_loaded"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    GATEWAY_UNAVAILABLE = "gateway_unavailable"

    OPEN_BUT_DEAD = "open_but_dead"
    FLAPPING = "flapping"
    UNKNOWN = "unknown"


GATEWAY_REASONS: Final = frozenset({Reason.GATEWAY_UNREACHABLE, Reason.GATEWAY_UNAVAILABLE})
"""Reasons that a verdict on the gateway gives its channels, not their own probes."""

_BY_SCAN: Final = frozenset(
    {
        Reason.LOGGED_OUT,
        Reason.LOGGED_OUT_BY_API,
        # The end of the ban needs time and no action.
        Reason.BANNED_TEMPORARILY,
        Reason.QR_LIMIT,
        Reason.SCAN_NEEDED,
        Reason.SESSION_MISSING,
        Reason.QR_SHOWN,
    }
)
"""Reasons that a scan ends, whatever the state is by now."""
_NOT_BY_SCAN: Final = frozenset({Reason.BANNED, Reason.EXPIRED, Reason.INSTANCE_REMOVED})
"""Reasons that WhatsApp's review, the subscription or the gateway's operator has to end first."""


class RecoverableCondition(StrEnum):
    """A condition that a recovery action may end, where the gateway has an action for it."""

    LOST = "lost"
    """A probe found the session lost; a restart may still bring it back."""
    INCOMPLETE = "incomplete"
    """Connected, but the gateway doesn't know the owner's number."""
    STUCK = "stuck"
    """Connecting for so long that it won't come by itself."""
    DROPPED = "dropped"
    """Closed, with a session, and not reconnected."""


class Monitoring(StrEnum):
    """Whether a channel is monitored. Paused: no probe, no new incident. Removed: deleted or inactive."""

    WATCHED = "watched"
    PAUSED = "paused"
    REMOVED = "removed"


class Status(NamedTuple):
    """A state with its reason and the gateway's own status code for it."""

    state: State
    reason: Reason | None = None
    code: int | None = None

    @property
    def terminal(self) -> bool:
        """True when only a scan with the phone can reconnect the channel."""
        return self.state is State.UNPAIRED or self.reason is Reason.SCAN_NEEDED

    @property
    def scan_helps(self) -> bool:
        """True when the scan of a QR reconnects the channel, with no other action before it."""
        if self.reason in _NOT_BY_SCAN:
            return False
        return self.reason in _BY_SCAN or self.state in {State.UNPAIRED, State.QR_PENDING}


class Witness(NamedTuple):
    """The newest webhook of one kind: its content and its times.

    `at` is the gateway's clock, `emitted_at` the same moment by ours as far as that is known.
    """

    at: datetime
    received_at: datetime
    emitted_at: datetime
    trigger: Trigger
    reason: Reason | None
    status: int | None


NOTHING_KNOWN: Final = Status(State.UNKNOWN)


class Trouble(NamedTuple):
    """The newest verdict on the gateway or its answer, which says nothing about the session."""

    at: datetime
    """When its probe began, or since when the gateway is silent, by our clock."""
    trigger: Trigger
    reason: Reason | None
    status: int | None


class Evidence(NamedTuple):
    """All that is known of a channel's session; its state is a pure function of this."""

    base: Status = NOTHING_KNOWN
    witnesses: tuple[Witness, ...] = ()
    settled_at: datetime | None = None
    """When the probe that set `base` began, by our clock; None before the first."""
    qr_at: datetime | None = None
    """When the newest QR reached us, by our clock."""
    epoch: int = 0
    """Which setting of the gateway's clock the witnesses' times belong to."""
    trouble: Trouble | None = None
    """It stands beside the witnesses and discards none; None: none since `base` was set."""


class Rules(NamedTuple):
    """The settings in force for one channel: its own, its tenant's and this installation's."""

    threshold: timedelta = timedelta(minutes=5)
    terminal_grace: timedelta = timedelta(seconds=15)
    terminal_waits: bool = False
    stale_after: timedelta = timedelta(seconds=120)
    retry_after: timedelta = timedelta(seconds=10)
    probe_wait: timedelta | None = timedelta(seconds=30)
    """How long a due incident on old evidence waits for a probe; None: until there is new evidence."""
    recovery: bool = True
    """Whether a lost session may be restarted before it counts as unpaired."""
    recoverable: tuple[RecoverableCondition, ...] = tuple(RecoverableCondition)
    """The conditions that the channel's gateway has recovery actions for."""
    recovery_wait: timedelta = timedelta(seconds=60)
    """How long a lost session stays dropped at most while recovery runs."""
    stuck_after: timedelta = timedelta(seconds=60)
    """How long connecting may last before it is stuck."""
    counted_after: timedelta = timedelta(seconds=10)
    """How long after its beginning a departure from open is counted."""
    monitoring: Monitoring = Monitoring.WATCHED
    configured: bool = True
    """Whether the channel has an address and a key, so that it can be probed."""


@dataclass(frozen=True, slots=True)
class ProbeStreak:
    """Answers of one kind in a row that are not yet a verdict."""

    kind: str
    count: int
    first_at: datetime
    last_at: datetime


class Incident(NamedTuple):
    """One outage of one channel, from when it became unhealthy to when it was open again."""

    kind: str
    last_state: str | None
    started_at: datetime
    opened_at: datetime
    reason: Reason | None = None
    status: int | None = None
    flapping: bool = False
    departures: int = 0
    """Of a flapping channel: how many of its departures from open were counted when that was last found."""


class Wait(NamedTuple):
    """A wait for a probe. `until` None: without an end; it is extended while the probe is queued."""

    since: datetime
    until: datetime | None


class Logout(NamedTuple):
    """A logout that may prove that the channel had been connected: by our clock."""

    emitted_at: datetime
    received_at: datetime


class Departure(NamedTuple):
    """A departure from open: when, and where it led first."""

    at: datetime
    status: Status
    back_at: datetime | None = None
    """When the channel was open again; None: not yet."""


class Channel(NamedTuple):
    """One channel as the machine sees it. `step` returns a new one; nothing is changed in place."""

    rules: Rules = Rules()
    evidence: Evidence = Evidence()
    status: Status = NOTHING_KNOWN
    version: int = 0
    """Counts changes of state or reason: an answer to a probe of an earlier version is stale."""
    since: datetime | None = None
    first_unhealthy_at: datetime | None = None
    terminal_at: datetime | None = None
    has_been_open: bool = False
    """Whether there is any sign that the channel ever was connected; it stays."""
    logouts: tuple[Logout, ...] = ()
    """Of a channel without such a sign: logouts that are one, unless the API ended the session then."""
    ended_by_api: tuple[datetime, ...] = ()
    """When the API logged such a channel out or removed it, by our clock."""
    fault_at: datetime | None = None
    """Since when such a channel's own wrong key, or missing instance, is confirmed; None: it isn't."""
    departures: tuple[Departure, ...] = ()
    """Its latest departures from open by itself, at most `flapping.KEPT`."""
    left_at: datetime | None = None
    """When it last left open, by its own evidence."""
    emitted_at: datetime | None = None
    """When its gateway emitted its newest webhook or traffic, by our clock: not when a retry came."""
    probe_streak: ProbeStreak | None = None
    probes: int = 0
    """Probes answered within this unhealthy stretch."""
    last_event_at: datetime | None = None
    fresh_at: datetime | None = None
    """When the newest evidence with new information reached us."""
    probed_at: datetime | None = None
    awaiting_probe: Wait | None = None
    """Set while a due incident waits for a probe because the channel's evidence is old."""
    due_at: datetime | None = None
    probe_due_at: datetime | None = None
    lost_until: datetime | None = None
    """Set while a lost session stays dropped because recovery may run: until when at most."""
    recovery_due_at: datetime | None = None
    """From when on a recovery action may be ordered; None: none would help."""
    incident: Incident | None = None

    @property
    def state(self) -> State:
        return self.status.state
