"""What happens to channels, word by word, and where it leaves them; delivers nothing and knows no clock."""

from collections.abc import Sequence
from datetime import datetime
from random import Random
from typing import Final, NamedTuple

from faults.gateway import Event, Instance


class Word(NamedTuple):
    """One word of a gateway: a state of connection.update with its code, or `qr`."""

    state: str
    code: int = 200

    @property
    def memory(self) -> str:
        """What the gateway answers from then on when it is asked: it knows no QR; after a 515 it connects."""
        return "connecting" if self.state == "qr" or self.code == 515 else self.state

    def said_by(self, instance: Instance, at: datetime) -> Event:
        """Return the webhook that says so, stamped by our clock."""
        if self.state == "qr":
            code = f"2@{at.timestamp()}"
            return instance.event("qrcode.updated", {"qrcode": {"instance": instance.name, "code": code}}, at)
        return instance.update(self.state, self.code, at)


class Outcome(NamedTuple):
    """Where a channel stands: its state, the reason, and the kind of its open incident."""

    state: str
    reason: str | None = None
    incident: str | None = None


class History(NamedTuple):
    """All that one channel's gateway says of it, and where that leaves it."""

    words: Sequence[Word]
    outcome: Outcome


CHANNELS: Final = 27
"""Of each way of telling: every outcome three times."""
THRESHOLD: Final = {"heartbeat_threshold_minutes": 0.02}
"""What these channels wish: an incident after a second."""
CONNECTING: Final = Word("connecting")
QR: Final = Word("qr")
OPEN: Final = Word("open")
NEVER_OPEN: Final = History((CONNECTING, QR, CONNECTING, QR), Outcome("qr_pending", "qr_shown"))
"""A new channel that waits for its first scan, which is no incident."""
ENDINGS: Final = (
    History((), Outcome("open")),
    History((CONNECTING,), Outcome("connecting", "connecting", "connecting")),
    History((Word("close", 515),), Outcome("connecting", "restart_required", "connecting")),
    History((Word("close", 428),), Outcome("disconnected", "connection_closed", "disconnected")),
    History((CONNECTING, Word("close", 440)), Outcome("disconnected", "connection_replaced", "disconnected")),
    History((Word("close", 401),), Outcome("disconnected", "logged_out", "disconnected")),
    History((CONNECTING, Word("close", 403)), Outcome("disconnected", "banned", "disconnected")),
    History((Word("close", 401), CONNECTING, QR, QR), Outcome("qr_pending", "scan_needed", "qr_pending")),
)
"""What comes after a channel was open; the words are a person's, not the machine's."""
LOSSES: Final = (Word("close", 428), Word("close", 401), CONNECTING)
"""What a channel came back from."""
LOST_AT_MOST: Final = 2
"""How often, before its end: with five departures it would be flapping, which is told by our own clock."""


def histories(count: int, random: Random) -> list[History]:
    """Return the histories of so many channels, with each ending in turn."""
    return [_history(n, random) for n in range(count)]


def _history(n: int, random: Random) -> History:
    kind = n % (len(ENDINGS) + 1)
    if kind == len(ENDINGS):
        return NEVER_OPEN
    words = [CONNECTING, QR, OPEN]
    for _ in range(random.randint(0, LOST_AT_MOST)):
        words += [random.choice(LOSSES), CONNECTING, OPEN]
    return History((*words, *ENDINGS[kind].words), ENDINGS[kind].outcome)
