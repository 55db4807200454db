"""The way back: what whoever holds a link may do for its one channel; no login, and nothing else in reach.

What is shown here links a phone: it goes to the reader and nowhere else.
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
"""How long a link still opens once its incident is over: whoever scanned may look again whether it holds."""
FORM_BYTES: Final = 1024
"""A form with one telephone number."""
_AWAY: Final[tuple[type[Exception], ...]] = (Unavailable, *DATABASE_AWAY)
NUMBER: Final = re.compile(r"[0-9]{8,15}", re.ASCII)


class Refused(Exception):
    """A page that says why not; `why` names its sentences."""

    def __init__(self, status: HTTPStatus, why: str, again_in: int | None = None) -> None:
        super().__init__(why)
        self.status, self.why = status, why
        self.headers = {} if again_in is None else {"Retry-After": str(again_in)}


@dataclass(frozen=True, slots=True)
class PageCall:
    """One request of somebody with a good link."""

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
        """Keep in the channel's history what the reader was given, without who it was."""
        noted = HistoryNote({"incident_id": str(self.link.incident_id)})
        await self.app.operator_signals.note(self.link.channel_id, name, noted)


Endpoint = Callable[[PageCall], Awaitable[Response]]


def _route(app: App, limits: VisitorLimits, method: str, path: str, endpoint: Endpoint) -> Route:
    """Return the route of an endpoint behind a valid link that is not used too often; a refusal is a page."""

    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(await _call(app, limits, request))
        except Refused as refused:
            return _plain(request, refused)
        except _AWAY:
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
    """Return who asks: the caller, or whom a proxy on a private network names last; counted, never kept."""
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
    """Show the page; the QR comes by its stream, or with the page where `qr` asks for it (no JavaScript)."""
    view = _first_view(call.channel)
    if call.request.method == "GET":
        await call.note("reconnect_opened")
        if "qr" in call.request.query_params:
            view = await _session(call).at(call.channel, datetime.now(UTC))
    return _page(call, view=view, code=None, problem=None)


def _first_view(channel: ReconnectTarget) -> View:
    """Return what is seen until the stream tells more: without JavaScript nothing ever does."""
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
    """Tell the page what is to be seen, until the channel is connected."""
    app, limits, key = call.app, call.limits, (call.link.channel_id, call.link.incident_id)
    locale, again = call.locale, call.request.path_params["token"]

    async def body() -> AsyncIterator[str]:
        with limits.looking(call.link.channel_id):
            seen = views(_session(call), lambda: app.reconnect_targets.find(key), limits)
            async for event in events(seen, locale, again):
                yield event

    if not limits.has_place(call.link.channel_id):
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "often", 10)
    # Proxies must not collect a stream before they pass it on.
    headers = {**UNKEPT, "X-Accel-Buffering": "no"}
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


async def give_code(call: PageCall) -> Response:
    """Give a code to type on the phone with this number."""
    code, problem = await _code(call)
    if "hx-request" in call.request.headers:
        return page(render("code.html", call.locale, code=code, problem=problem))
    return _page(call, view=_first_view(call.channel), code=code, problem=problem)


async def _code(call: PageCall) -> tuple[str | None, str | None]:
    """Return a pairing code, or the name of what speaks against one."""
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
    """Return the routes of the page; what they count of their visitors is counted by each app."""
    limits = VisitorLimits(app.stopping)
    return [
        Mount("/reconnect/static", StaticFiles(directory=FOLDER / "static")),
        _route(app, limits, "GET", "/reconnect/{token}", show),
        _route(app, limits, "POST", "/reconnect/{token}", give_code),
        _route(app, limits, "GET", "/reconnect/{token}/stream", stream),
    ]
