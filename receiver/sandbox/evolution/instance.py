"""What may happen to an Evolution instance, as scripts; each begins at once and may be awaited to its end."""

import asyncio
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final

from receiver.sandbox.channel import Script
from receiver.sandbox.evolution import data as bodies
from receiver.sandbox.evolution.session import RACE, WhatsAppSession

OPENS_WITHIN: Final = (0.1, 0.2)
"""Seconds from connecting to open (seen on 2.3.6)."""
CONNECT_TIMEOUT: Final = 30.0
"""Seconds after which an attempt to connect on a silent path fails; the next begins at once."""
FIRST_QR_WITHIN: Final = (0.2, 0.6)
QR_FOR: Final = 45.0
"""Seconds that a QR is shown."""
QRS_A_SOCKET: Final = 6
"""QRs until WhatsApp wants a new connection."""
UNLINKED: Final = {"tag": "conflict", "attrs": {"type": "device_removed"}}


class Instance(WhatsAppSession):
    """One instance. What it does returns at once; the task that is returned ends when the script does."""

    def connect(self) -> asyncio.Task[None]:
        """Connect: connecting, then open."""
        return self._play(self._connecting(), brief=True)

    def scan(self) -> asyncio.Task[None]:
        """Be paired by a scanned QR."""
        return self._play(self._scanned(), brief=True)

    def drop(self, seconds: float | None, code: int = 428, pace: float | None = None) -> asyncio.Task[None]:
        """Lose the connection for so long (None: for ever), trying again `pace` times a second meanwhile.

        Without a pace the path is silent, and an attempt takes 30 s. A code after which the version doesn't
        reconnect ends the session instead.
        """
        return self._play(self._dropped(seconds, code, pace))

    def flood(self, count: int, pace: float = 70.0, false_close: bool = False) -> asyncio.Task[None]:
        """Send so many connecting webhooks, `pace` a second; a false close may be among them."""
        return self._play(self._flooding(count, pace, false_close))

    def flap(self, times: int, gap: float = 3.5) -> asyncio.Task[None]:
        """Be replaced (440) and connect again so many times: pairs of connecting and open."""
        return self._play(self._flapping(times, gap))

    def unlink(self, code: int = 401) -> asyncio.Task[None]:
        """Be removed on the phone (401), or banned (402, 403, 406)."""
        return self._play(self._dropped(None, code, None), brief=code in self.server.version.final_codes)

    def logout(self) -> asyncio.Task[None]:
        """Be logged out by API."""
        return self._play(self._logged_out(), brief=True)

    def show_qr(self, times: int = 30, number: str | None = None) -> asyncio.Task[None]:
        """Ask for a scan with so many QRs, then give up; with a number each has a pairing code, too."""
        self.number = number
        return self._play(self._asking(times))

    def remove(self) -> asyncio.Task[None]:
        """Be deleted by API: 404 from now on."""
        return self._play(self._removed(), brief=True)

    def lose(self, state: str = "close") -> None:
        """Have the session lost in memory, without a word."""
        self.stop()
        self.state = state

    def come_back(self) -> None:
        """Be there and open, without a word."""
        super().come_back()
        self.is_mute = self.shows = False
        self.is_paired = True

    def die_open(self, recorded: str | None = None) -> None:
        """Be dead and say open: nothing comes any more, and only a new process or `connect` mends it.

        `recorded`: what the database's column says from now on; close, as after a logout that failed.
        """
        self.stop()
        self.state = "open"
        self.is_mute = True
        self.recorded = recorded or self.recorded

    def message(self) -> None:
        """Receive a customer's message."""
        number = f"3EB0{self._stage.random.getrandbits(64):016X}"
        self._emit("messages.upsert", bodies.message(number, self.id, datetime.now(UTC)))

    def presence(self) -> None:
        """Hear that a customer types."""
        self._emit("presence.update", bodies.presence())

    def receipt(self) -> None:
        """Hear that a customer has read a message."""
        number = f"3EB0{self._stage.random.getrandbits(64):016X}"
        self._emit("messages.update", bodies.receipt(number, self.id))

    def say_late(self, event_age: timedelta | float, state: str = "connecting", code: int = 200) -> None:
        """Deliver now a connection.update that was emitted so long ago (seconds, on real clocks)."""
        age = event_age if isinstance(event_age, timedelta) else timedelta(seconds=event_age)
        self._update(state, code, at=datetime.now(UTC) - age)

    def stick(self) -> None:
        """Be stuck in connecting, said once: its upgrade was refused, and only a restart tries again."""
        self.stop()
        self._begin()

    def stop(self) -> None:
        """End the script that plays."""
        super().stop()
        self.is_cut = False

    def restart(self) -> None:
        """Be restarted by API; without effect on a dead socket that says open, and on a closed one.

        While WhatsApp can't be reached it tries in vain, as before.
        """
        if not self.is_mute and self.is_paired and self.state != "close" and not self.is_cut:
            self._play(self._restarting(), brief=True)

    def boot(self) -> None:
        """Connect as a new process does: a logged-out instance, too, where the version does so.

        Later versions leave every row alone that is recorded as closed.
        """
        is_idle = self.recorded == "close" and not self.server.version.connects_all_at_boot
        if self.is_paired and not is_idle:
            self.connect()
        elif self.server.version.connects_all_at_boot:
            self.show_qr()
        else:
            self.state = "close"

    def _between(self, least: float, most: float) -> float:
        return self._stage.random.uniform(least, most)

    def _connecting(self) -> Script:
        self._begin()
        yield self._between(*OPENS_WITHIN)
        self._open()

    def _scanned(self) -> Script:
        self._fail(515)
        if self.server.version.reconnects_after:
            yield self.server.version.reconnects_after
        yield from self._connecting()

    def _restarting(self) -> Script:
        self._fail(200)
        yield from self._connecting()

    def _dropped(self, seconds: float | None, code: int, pace: float | None) -> Script:
        if code in self.server.version.final_codes:
            self._end_by(code)
            return
        self.is_cut = True
        self._fail(code)
        left = inf if seconds is None else seconds
        while left > 0:
            lasting = min(left, CONNECT_TIMEOUT if pace is None else 1 / pace)
            yield from self._attempt(lasting, share=0.95 if pace is None else 0.5)
            left -= lasting
        self.is_cut = False
        if self.server.version.reconnects_after:
            yield self.server.version.reconnects_after
        yield from self._connecting()

    def _attempt(self, seconds: float, share: float) -> Script:
        """Try to connect in vain; memory says connecting for this share of the time, then close."""
        self._begin()
        yield seconds * share
        self._fail(408 if 408 not in self.server.version.final_codes else 428)
        yield seconds * (1 - share)

    def _end_by(self, code: int) -> None:
        if code == 401:
            self._end(code, "Stream Errored (conflict)", UNLINKED)
        elif code == 408:
            self._end(code, "Connection was lost", None)
        else:
            self._end(code, "Connection Failure", {"reason": str(code)})

    def _flooding(self, count: int, pace: float, false_close: bool) -> Script:
        self.is_cut = True
        for number in range(count):
            if false_close and number == count // 2:
                self._update("close", 428)
            yield from self._attempt(1 / pace, share=0.5)
        self.state = "connecting"
        self.is_cut = False

    def _flapping(self, times: int, gap: float) -> Script:
        for _ in range(times):
            self._fail(440)
            yield from self._connecting()
            yield gap

    def _logged_out(self) -> Script:
        silent = self.server.version.logs_out_silently
        self._end(401, f"Log out instance: {self.name}", None, silent)
        yield from ()

    def _asking(self, times: int) -> Script:
        self.is_paired = False
        self._begin()
        yield self._between(*FIRST_QR_WITHIN)
        for number in range(times):
            if number and number % QRS_A_SOCKET == 0:
                if 408 in self.server.version.final_codes:
                    self._end(408, "QR refs attempts ended", None)
                    return
                self._fail(408)
                self._begin()
            self._show_qr()
            yield QR_FOR
        self._refuse()

    def _removed(self) -> Script:
        was_closed = self.state == "close"
        about = {"instanceName": self.name, "instanceId": self.id}
        self._emit("instance.delete", about, after=self._between(*RACE))
        self._emit("remove.instance", None, after=self._between(*RACE))
        if not was_closed and not self.server.version.logs_out_silently:
            self._end(401, f"Log out instance: {self.name}", None)
        self.exists = False
        yield from ()
