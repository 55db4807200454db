"""Types of the rows of `read_channels`: the columns, and the document in `memory`.

Types only: rows are records of the driver's, read where they are, neither copied nor checked.
"""

from datetime import datetime
from typing import Literal, Protocol, TypedDict, overload
from uuid import UUID


class ChannelRecord(Protocol):
    """A row of `read_channels` by column name."""

    @overload
    def __getitem__(self, name: Literal["channel_id", "tenant_id"], /) -> UUID: ...
    @overload
    def __getitem__(self, name: Literal["gateway_id"], /) -> UUID | None: ...
    @overload
    def __getitem__(self, name: Literal["paused", "removed", "configured"], /) -> bool: ...
    @overload
    def __getitem__(self, name: Literal["version"], /) -> int: ...
    @overload
    def __getitem__(self, name: Literal["status", "event_id", "event_status"], /) -> int | None: ...
    @overload
    def __getitem__(self, name: Literal["state", "memory", "provider"], /) -> str: ...
    @overload
    def __getitem__(
        self,
        name: Literal[
            "reason", "told_rules", "metadata", "defaults", "locale", "clock", "phone_number", "profile_name",
            "incident_kind", "incident_last_state", "incident_details", "event_trigger", "event_reason",
        ],
        /,
    ) -> str | None: ...  # fmt: skip
    @overload
    def __getitem__(self, name: Literal["event_source", "event_name"], /) -> str:
        """Null without a newest event, as is `event_id`."""

    @overload
    def __getitem__(
        self,
        name: Literal[
            "since", "first_unhealthy_at", "last_event_at", "fresh_at", "probed_at", "due_at", "probe_due_at",
            "recovery_due_at", "emitted_at", "gateway_failed_at", "gateway_settles_until",
            "last_health_check", "incident_opened_at",
        ],
        /,
    ) -> datetime | None: ...  # fmt: skip
    @overload
    def __getitem__(self, name: Literal["incident_started_at"], /) -> datetime:
        """Null without an open incident, as is `incident_kind`."""


WrittenStatus = tuple[str, str | None, int | None]
"""State, reason and the gateway's status code. In JSON it is an array, as are the tuples below."""
WrittenWitness = tuple[str, str, str, str, str | None, int | None]
"""Times of the gateway, of arrival and of emission; trigger, reason and the gateway's status code."""

WrittenTrouble = tuple[str, str, str | None, int | None]
"""Time; trigger, reason and the gateway's status code."""
WrittenDeparture = tuple[str, str | None, str, str | None, int | None]
"""When a channel left open and when it was back; the state, reason and code that it went to."""


class WrittenEvidence(TypedDict, total=False):
    """Evidence as `json_of_evidence` writes it."""

    base: WrittenStatus
    witnesses: list[WrittenWitness]
    settled_at: str
    qr_at: str
    epoch: int
    trouble: WrittenTrouble


class WrittenProbeStreak(TypedDict):
    """The answers counted so far."""

    kind: str
    count: int
    first_at: str
    last_at: str


class Memory(TypedDict, total=False):
    """The document in the column `memory`, as `memory_of` writes it; what is empty is left out."""

    evidence: WrittenEvidence
    terminal_at: str
    has_been_open: bool
    logouts: list[tuple[str, str]]
    ended_by_api: list[str]
    fault_at: str
    departures: list[WrittenDeparture | str]
    left_at: str
    emitted_at: str
    suspicion: WrittenProbeStreak
    probes: int
    awaiting_probe_since: str
    awaiting_probe_until: str
    lost_until: str
    details: dict[str, object]
