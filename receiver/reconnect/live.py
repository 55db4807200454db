"""What somebody with a link sees of a channel, from moment to moment, as Server-Sent Events.

The gateway is asked for a QR only while somebody looks, and none is shown before the history says so.
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
from receiver.recovery.qr import NEEDING, QrNotGiven, QrNotShown, QrShown, QrTooSoon, show_qr
from statemachine.model import State, Status

EVERY: Final = timedelta(seconds=1)
"""Between two looks at the channel's row, for all that look together."""
LASTS: Final = timedelta(minutes=10)
"""A page left open this long gets no more QRs until somebody asks: gateways count what they make."""
RENEWED_BEFORE: Final = timedelta(seconds=3)
"""A QR is renewed this long before it can't be scanned any more."""
ASKED_AGAIN: Final = timedelta(seconds=10)
"""After a gateway gave no QR, when it said nothing better."""
PROBED_EVERY: Final = timedelta(seconds=5)
"""How often the channel is probed while somebody looks: a gateway's webhook may be lost."""
SPOKEN_EVERY: Final = 15
"""Looks after which a silent stream says something, so that nothing between takes it for dead."""
CALM: Final = {
    State.OPEN: "connected",
    State.CONNECTING: "connecting",
    State.DROPPED: "waiting",
    State.ERROR: "down",
    State.UNKNOWN: "preparing",
}
"""What is seen of a channel that needs no scan."""


class View(NamedTuple):
    """What is to be seen: one of a few pictures, and the QR if it is that one."""

    name: str
    image: str | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after it."""
        return self.name in {"connected", "gone", "paused"}


PREPARING: Final = View("preparing")
REFUSED: Final = View("refused")


def view_without_qr(channel: ReconnectTarget) -> View | None:
    """Return what is seen of a channel that a QR doesn't help; None: it needs one."""
    if channel.state not in NEEDING:
        return View(CALM[channel.state])
    return None if Status(channel.state, channel.reason).scan_helps else REFUSED


class QrSession:
    """One reader's look at one channel."""

    def __init__(self, app: App, on_shown: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._on_shown = on_shown
        self._shown: QrShown | None = None
        self._told_at: datetime | None = None
        self._ask_at = self._probe_at = datetime.min.replace(tzinfo=UTC)
        self._view = PREPARING

    async def at(self, channel: ReconnectTarget, now: datetime) -> View:
        """Return what is to be seen now."""
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
            and channel.shown_at == self._told_at
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
        self._shown, self._told_at, self._ask_at = shown, channel.shown_at, now + EVERY
        return View("typed_only") if shown.qr.image is None else View("qr", shown.qr.image)


async def views(
    session: QrSession, find: Callable[[], Awaitable[ReconnectTarget | None]], limits: VisitorLimits
) -> AsyncIterator[View | None]:
    """Yield what is seen each time that it changes, and None now and then; ends with the process, too."""
    began, seen, silent = datetime.now(UTC), None, 0
    while (now := datetime.now(UTC)) < began + LASTS:
        try:
            channel = await find()
            view = View("gone") if channel is None else await session.at(channel, now)
        except TRANSIENT:
            # The database is away: what is on the screen stays.
            view = seen or PREPARING
        silent += 1
        if view != seen or silent >= SPOKEN_EVERY:
            yield None if view == seen else view
            seen, silent = view, 0
        if view.is_last:
            return
        if not await limits.pause(EVERY.total_seconds()):
            return
    yield View("paused")


async def events(seen: AsyncIterator[View | None], locale: str, again: str) -> AsyncIterator[str]:
    """Yield what is seen as Server-Sent Events, in a language; after the last the browser closes."""
    yield "retry: 2000\n\n"
    async for view in seen:
        if view is None:
            yield ": still here\n\n"
            continue
        lines = render("panel.html", locale, view=view, again=again).splitlines()
        yield "event: panel\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
        if view.is_last:
            yield "event: end\ndata: \n\n"
