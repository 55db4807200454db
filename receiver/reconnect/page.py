"""The reconnect page: a valid link gives access to its one channel, without login, and to nothing else.

QRs and codes link a phone: they go into the answer and nowhere else.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from db.connection.retry import persist
from db.ingest.entry import HistoryNote
from db.ingest.queue import COMMIT_TIMEOUT
from db.reads.reconnect import ReconnectTarget
from receiver.app import App
from receiver.http.problems import DATABASE_AWAY, Unavailable
from receiver.http.signed_links import ReconnectLink
from receiver.reconnect.limits import VisitorLimits
from receiver.reconnect.live import PREPARING, REFUSED, QrSession, View, events, view_without_qr, views
from receiver.reconnect.rendering import FOLDER, UNKEPT, moment, page, render
from receiver.reconnect.texts import language_of, reason_in
from receiver.recovery.qr import QrNotGiven, QrShown, QrTooSoon, show_qr

AFTER: Final = timedelta(hours=1)
"""How long a link still opens after its incident is resolved, to confirm that the scan worked."""
FORM_BYTES: Final = 1024
"""Largest body of the form, which has one telephone number."""
_UNAVAILABLE: Final[tuple[type[Exception], ...]] = (Unavailable, *DATABASE_AWAY)
NUMBER: Final = re.compile(r"[0-9]{8,15}", re.ASCII)


class Refused(Exception):
    """A request is refused with a page; `why` names its sentences."""

    def __init__(self, status: HTTPStatus, why: str, again_in: int | None = None) -> None:
        super().__init__(why)
        self.status, self.why = status, why
        self.headers = {} if again_in is None else {"Retry-After": str(again_in)}


@dataclass(frozen=True, slots=True)
class PageCall:
    """One request with a valid link."""

    request: Request
    app: App
    limits: VisitorLimits
    link: ReconnectLink
    channel: ReconnectTarget

    @property
    def locale(self) -> str:
        """The reader's language."""
        return _language(self.request, self.channel.locale)

    async def note(self, name: str) -> None:
        """Store a note in the channel's history, without the reader's identity."""
        history_note = HistoryNote({"incident_id": str(self.link.incident_id)})
        await self.app.operator_signals.note(self.link.channel_id, name, history_note)


Endpoint = Callable[[PageCall], Awaitable[Response]]


def _route(app: App, limits: VisitorLimits, method: str, path: str, endpoint: Endpoint) -> Route:
    """Return the route of an endpoint for valid links within their limits; a refusal is a page."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(await _call(app, limits, request))
        except Refused as refused:
            return _plain(request, refused)
        except _UNAVAILABLE:
            return _plain(request, Refused(HTTPStatus.SERVICE_UNAVAILABLE, "away", again_in=5))

    return Route(path, guarded, methods=[method])


async def _call(app: App, limits: VisitorLimits, request: Request) -> PageCall:
    now = datetime.now(UTC)
    _allow(limits.wait_for_address(_address(request)))
    link = app.links.read(request.path_params["token"])
    if link is None:
        raise Refused(HTTPStatus.NOT_FOUND, "unknown")
    _allow(limits.wait_for_link(link.channel_id))
    if now >= link.expires_at:
        raise Refused(HTTPStatus.GONE, "expired")
    async with asyncio.timeout(COMMIT_TIMEOUT.total_seconds()):
        channel = await persist(lambda: app.reconnect_targets.find((link.channel_id, link.incident_id)))
    if channel is None:
        raise Refused(HTTPStatus.GONE, "gone")
    if channel.resolved_at is not None and now >= channel.resolved_at + AFTER:
        raise Refused(HTTPStatus.GONE, "over")
    return PageCall(request, app, limits, link, channel)


def _allow(seconds: int) -> None:
    if seconds:
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "often", seconds)


def _address(request: Request) -> str:
    """Return the client's address, behind a private proxy the last it names; counted, never stored."""
    caller = "" if request.client is None else request.client.host
    named = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    try:
        ip_address(named)
        return named if ip_address(caller).is_private else caller
    except ValueError:
        return caller


def _language(request: Request, tenants: str | None = None) -> str:
    return language_of(request.query_params.get("lang"), request.headers.get("accept-language"), tenants)


def _plain(request: Request, refused: Refused) -> Response:
    locale = _language(request)
    return page(render("plain.html", locale, why=refused.why), refused.status, refused.headers)


async def show(call: PageCall) -> Response:
    """Return the page; the QR comes by its stream, or in the page with the query `qr` (no JavaScript)."""
    view = _first_view(call.channel)
    if call.request.method == "GET":
        await call.note("reconnect_opened")
        if "qr" in call.request.query_params:
            view = await _session(call).at(call.channel, datetime.now(UTC))
    return _page(call, view=view, code=None, problem=None)


def _first_view(channel: ReconnectTarget) -> View:
    """Return the view until the stream sends another; without JavaScript it stays."""
    return REFUSED if view_without_qr(channel) is REFUSED else PREPARING


def _page(call: PageCall, **values: object) -> Response:
    channel, locale = call.channel, call.locale
    still, token = "qr" in call.request.query_params, call.request.path_params["token"]
    until = moment(call.link.expires_at, locale, channel.time_zone)
    about = {"channel": channel, "token": token, "again": token, "until": until, "still": still}
    reason, is_refused = reason_in(locale, channel.reason), view_without_qr(channel) is REFUSED
    return page(render("reconnect.html", locale, reason=reason, is_refused=is_refused, **about, **values))


def _session(call: PageCall) -> QrSession:
    return QrSession(call.app, lambda: call.note("reconnect_qr_shown"))


async def stream(call: PageCall) -> Response:
    """Stream views to the page until the channel is connected."""
    app, limits, key = call.app, call.limits, (call.link.channel_id, call.link.incident_id)
    locale, again = call.locale, call.request.path_params["token"]

    async def body() -> AsyncIterator[str]:
        with limits.counting_stream(call.link.channel_id):
            seen = views(_session(call), lambda: app.reconnect_targets.find(key), limits)
            async for event in events(seen, locale, again):
                yield event

    if not limits.allows_stream(call.link.channel_id):
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "often", 10)
    # Proxies must not buffer the stream.
    headers = {**UNKEPT, "X-Accel-Buffering": "no"}
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


async def give_code(call: PageCall) -> Response:
    """Return a pairing code for the number in the form, or the problem."""
    code, problem = await _code(call)
    if "hx-request" in call.request.headers:
        return page(render("code.html", call.locale, code=code, problem=problem))
    return _page(call, view=_first_view(call.channel), code=code, problem=problem)


async def _code(call: PageCall) -> tuple[str | None, str | None]:
    """Return a pairing code, or the name of the problem."""
    number, app, channel = await _number(call.request), call.app, call.channel
    if number is None:
        return None, "code_wrong"
    if view_without_qr(channel) is REFUSED:
        return None, "code_none"
    if call.limits.wait_for_code(channel.channel_id):
        return None, "code_often"
    outcome = await show_qr(app.pool, app.vault, app.client, channel.channel_id, channel.tenant_id, number)
    match outcome:
        case QrShown() if outcome.qr.pairing_code is not None:
            await call.note("reconnect_code_shown")
            return outcome.qr.pairing_code, None
        case QrTooSoon() | QrNotGiven():
            return None, "code_later"
        case _:
            return None, "code_none"


async def _number(request: Request) -> str | None:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            return None
    given = parse_qs(body.decode("ascii", "replace")).get("number", [""])[0]
    number = re.sub(r"[\s()+.\-]", "", given)
    return number if NUMBER.fullmatch(number) else None


def routes(app: App) -> list[BaseRoute]:
    """Return the routes of the page, with limits of their own."""
    limits = VisitorLimits(app.stopping)
    return [
        Mount("/reconnect/static", StaticFiles(directory=FOLDER / "static")),
        _route(app, limits, "GET", "/reconnect/{token}", show),
        _route(app, limits, "POST", "/reconnect/{token}", give_code),
        _route(app, limits, "GET", "/reconnect/{token}/stream", stream),
    ]
