"""What an Evolution instance remembers, and what it says when something happens to it. Plays no script."""

from datetime import UTC, datetime
from typing import Any, Final

from receiver.sandbox.delivery import Courier
from receiver.sandbox.evolution import data as bodies
from receiver.sandbox.evolution.speaker import SpeakerHost, WebhookSender

LETTERS: Final = "ABCDEFGHJKLMNPQRSTVWXYZ123456789"
RACE: Final = (0.001, 0.022)
"""Seconds within which events of one moment arrive, each on its own connection (seen on 2.3.6)."""


class WhatsAppSession(WebhookSender):
    """One instance's session with WhatsApp."""

    def __init__(self, courier: Courier, server: SpeakerHost, name: str, key: str, state: str) -> None:
        super().__init__(courier, server, name, key, state)
        self.is_paired = state in ("open", "connecting")
        self.shows = False
        """Whether it shows QRs."""
        self.is_cut = False
        """Whether WhatsApp can't be reached, so that no attempt to connect comes to anything."""
        self.code = ""
        """The QR shown last."""
        self.number: str | None = None
        """The number that connect was given, for which there are pairing codes."""
        self.pairing_code: str | None = None
        self.connects = 0
        """How often connect was called."""
        self.qr_count = 0
        self.recorded = state
        """The database's column, which fetchInstances shows: it goes stale."""
        self.ended: tuple[int, str, datetime] | None = None
        """Code, object and time of the last disconnection recorded there; kept when it's open again."""

    @property
    def owner(self) -> dict[str, Any]:
        """Whose number it is."""
        name = self.name.replace("-", " ").title()
        return {"wuid": self.jid, "profileName": name, "profilePictureUrl": None}

    def lose_memory(self) -> None:
        """Begin a new process: no state yet, no owner known, and what went under way is lost."""
        self.forget()
        self.state = None
        self.has_opened = self.is_mute = self.shows = False
        self.qr_count = 0

    def _begin(self) -> None:
        self.state = "connecting"
        self.is_mute = self.shows = False
        self._update("connecting", 200)

    def _open(self) -> None:
        self.state = self.recorded = "open"
        self.is_paired = self.has_opened = True
        if self.server.version.tells_every_close:
            self._update("open", 200)
        else:
            self._emit("connection.update", bodies.opened(self.name, self.owner))

    def _fail(self, code: int) -> None:
        """Lose a connection or an attempt at one; only old versions tell."""
        self.state = "close"
        if self.server.version.tells_every_close:
            self._update("close", code)

    def _end(self, code: int, message: str, cause: dict[str, Any] | None, silent: bool = False) -> None:
        """Lose the session: only a new scan brings it back."""
        now = datetime.now(UTC)
        disconnection = bodies.disconnection(code, message, cause, now)
        self.state = self.recorded = "close"
        self.is_paired = self.shows = False
        self.ended = code, disconnection, now
        if silent:
            return
        status = "status.instance", bodies.closed(self.name, code, disconnection, now)
        close = "connection.update", bodies.update(self.name, "close", code)
        logout = "logout.instance", None
        is_old = self.server.version.tells_every_close
        for event, data in (close, status, logout) if is_old else (status, logout, close):
            self._emit(event, data, after=self._stage.random.uniform(*RACE))

    def _show_qr(self) -> None:
        self.shows = True
        self.qr_count += 1
        self.recorded = "connecting"
        self.code = f"2@{self._stage.random.getrandbits(256):064x},AAAA=,BBBB=,CCCC="
        letters = self._stage.random.choices(LETTERS, k=8)
        self.pairing_code = None if self.number is None else "".join(letters)
        self._emit("qrcode.updated", bodies.qr(self.name, self.code, self.pairing_code))

    def _refuse(self) -> None:
        """Show no more QRs; memory says close, without a close."""
        self.state = "close"
        self.shows = False
        self._emit("qrcode.updated", bodies.QR_LIMIT)
        refused = bodies.update(self.name, "refused", 428)
        is_known = self.has_opened and not self.server.version.tells_every_close
        self._emit("connection.update", refused | self.owner if is_known else refused)

    def _update(self, state: str, reason: int, at: datetime | None = None) -> None:
        self._emit("connection.update", bodies.update(self.name, state, reason), at)
