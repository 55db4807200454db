"""The stream of a reconnect page: views of one channel as Server-Sent Events.

The gateway is asked for a QR only while a page is open, and none is shown before the history has its note.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, assert_never

from db.connection.retry import TRANSIENT
from db.reads.reconnect import ReconnectTarget
from db.reconcile.qr import probe_now
from receiver.app import App
from receiver.reconnect.limits import VisitorLimits
from receiver.reconnect.rendering import render
from receiver.recovery.qr import QR_ALLOWED, QrNotGiven, QrNotShown, QrShown, QrTooSoon, show_qr
from statemachine.model import State, Status

EVERY: Final = timedelta(seconds=1)
"""Pause between reads of the channel's row."""
LASTS: Final = timedelta(minutes=10)
"""A page open this long gets no more QRs until the reader requests one: gateways count QRs."""
RENEWED_BEFORE: Final = timedelta(seconds=3)
"""A QR is renewed this long before it expires."""
ASKED_AGAIN: Final = timedelta(seconds=10)
"""Default delay after a gateway returned no QR."""
PROBED_EVERY: Final = timedelta(seconds=5)
"""How often the channel is probed while a page is open: a webhook may be lost."""
KEEP_ALIVE_AFTER: Final = 15
"""Reads after which a silent stream sends a comment, so that no proxy closes it."""
VIEWS_WITHOUT_QR: Final = {
    State.OPEN: "connected",
    State.CONNECTING: "connecting",
    State.DROPPED: "waiting",
    State.ERROR: "down",
    State.UNKNOWN: "preparing",
}
"""The view of a channel that needs no scan, by its state."""


class View(NamedTuple):
    """What the page shows: one of a few panels, with the QR's image in the panel `qr`."""

    name: str
    image: str | None = None

    @property
    def is_last(self) -> bool:
        """Whether the stream ends with it."""
        return self.name in {"connected", "gone", "paused"}


PREPARING: Final = View("preparing")
REFUSED: Final = View("refused")


def view_without_qr(channel: ReconnectTarget) -> View | None:
    """Return the view of a channel for which no QR is shown; None: it needs one."""
    if channel.state not in QR_ALLOWED:
        return View(VIEWS_WITHOUT_QR[channel.state])
    return None if Status(channel.state, channel.reason).scan_helps else REFUSED


class QrSession:
    """The QR of one open page: when to ask the gateway, and when to renew."""

    def __init__(self, app: App, on_shown: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._on_shown = on_shown
        self._shown: QrShown | None = None
        self._shown_at: datetime | None = None
        self._ask_at = self._probe_at = datetime.min.replace(tzinfo=UTC)
        self._view = PREPARING

    async def at(self, channel: ReconnectTarget, now: datetime) -> View:
        """Return the view of the channel now."""
        if channel.state is not State.OPEN:
            await self._probe(channel, now)
        without_qr = view_without_qr(channel)
        if without_qr is not None:
            self._shown = None
            return without_qr
        if now >= self._ask_at and not self._holds(channel, now):
            self._view = await self._ask(channel, now)
        return self._view

    def _holds(self, channel: ReconnectTarget, now: datetime) -> bool:
        return (
            self._shown is not None
            and now < self._shown.expires_at - RENEWED_BEFORE
            and channel.shown_at == self._shown_at
        )

    async def _probe(self, channel: ReconnectTarget, now: datetime) -> None:
        if now < self._probe_at:
            return
        self._probe_at = now + PROBED_EVERY
        async with self._app.pool.acquire() as connection:
            await probe_now(connection, channel.channel_id, now)

    async def _ask(self, channel: ReconnectTarget, now: datetime) -> View:
        app = self._app
        outcome = await show_qr(app.pool, app.vault, app.client, channel.channel_id, channel.tenant_id, None)
        self._ask_at = now + ASKED_AGAIN
        match outcome:
            case QrShown():
                return await self._show(outcome, channel, now)
            case QrNotShown(is_connected=True):
                return View("connecting")
            case QrNotShown():
                return REFUSED
            case QrNotGiven(_, again_in):
                self._ask_at = now + (again_in or ASKED_AGAIN)
                return View("down") if again_in is None else PREPARING
            case QrTooSoon(again_in):
                self._ask_at = now + again_in
                return self._view if self._shown and now < self._shown.expires_at else PREPARING
            case None:
                return View("gone")
            case _:
                assert_never(outcome)

    async def _show(self, shown: QrShown, channel: ReconnectTarget, now: datetime) -> View:
        if self._shown is None:
            await self._on_shown()
        self._shown, self._shown_at, self._ask_at = shown, channel.shown_at, now + EVERY
        return View("typed_only") if shown.qr.image is None else View("qr", shown.qr.image)


async def views(
    session: QrSession, find: Callable[[], Awaitable[ReconnectTarget | None]], limits: VisitorLimits
) -> AsyncIterator[View | None]:
    """Yield each new view, and None as a keep-alive; ends after a last view or with the process."""
    began, seen, silent = datetime.now(UTC), None, 0
    while (now := datetime.now(UTC)) < began + LASTS:
        try:
            channel = await find()
            view = View("gone") if channel is None else await session.at(channel, now)
        except TRANSIENT:
            # While the database is away the view stays.
            view = seen or PREPARING
        silent += 1
        if view != seen or silent >= KEEP_ALIVE_AFTER:
            yield None if view == seen else view
            seen, silent = view, 0
        if view.is_last:
            return
        if not await limits.pause(EVERY.total_seconds()):
            return
    yield View("paused")


async def events(seen: AsyncIterator[View | None], locale: str, again: str) -> AsyncIterator[str]:
    """Yield views as Server-Sent Events in one language; the last one has the browser close."""
    yield "retry: 2000\n\n"
    async for view in seen:
        if view is None:
            yield ": still here\n\n"
            continue
        lines = render("panel.html", locale, view=view, again=again).splitlines()
        yield "event: panel\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
        if view.is_last:
            yield "event: end\ndata: \n\n"
