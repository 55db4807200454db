"""A channel's QR for scanning: returned to an operator, and never cached."""

from math import ceil
from typing import Final, assert_never

from starlette.responses import Response

from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query
from receiver.http.problems import BadGateway, Conflict, MethodNotAllowed, NotFound, TooMany
from receiver.providers.qr import png_of
from receiver.recovery.qr import QrNotGiven, QrNotShown, QrShown, QrTooSoon, show_qr

UNKEPT: Final = {"Cache-Control": "no-store"}


async def show(call: Call) -> Response:
    """Show a QR for scanning, as JSON or, asked for image/png, as a picture; with `number` a pairing code."""
    if call.request.method == "HEAD":
        # It would have the gateway make a QR that is not shown.
        raise MethodNotAllowed("GET")
    number, app = Query(call.request).digits("number", 8, 15), call.app
    outcome = await show_qr(app.pool, app.vault, app.client, call.id(), call.tenant_id, number)
    match outcome:
        case None:
            raise NotFound("There is no such channel.")
        case QrShown():
            return _answer(call, outcome)
        case QrNotShown(why):
            raise Conflict(why)
        case QrNotGiven(why, again_in):
            raise BadGateway(why, again_in=None if again_in is None else ceil(again_in.total_seconds()))
        case QrTooSoon(again_in):
            detail = "The gateway was asked for this channel's QR only just now."
            raise TooMany(detail, again_in)
        case _:
            assert_never(outcome)


def _answer(call: Call, shown: QrShown) -> Response:
    if shown.qr.image is not None and _wants_picture(call.request.headers.get("accept", "")):
        return Response(png_of(shown.qr.image), media_type="image/png", headers=UNKEPT)
    qr = shown.qr
    code = {"code": qr.code, "image": qr.image, "pairing_code": qr.pairing_code}
    return Json({**code, "expires_at": shown.expires_at}, headers=UNKEPT)


def _wants_picture(accept: str) -> bool:
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    return "image/png" in kinds and "application/json" not in kinds


operations: Final = [Operation("GET", "/channels/{id}/qr", show, asks_gateway=True)]
