"""Renders the pages and sets their security headers; does no I/O but reading templates."""

import re
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel.dates import format_datetime
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from receiver.reconnect.texts import NAMES, texts_in

FOLDER: Final = Path(__file__).parent
UNKEPT: Final = {
    # Scripts and styles are our own files; only a QR's picture comes within the page.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Vary": "Accept-Language",
}
"""Headers of every page: not cached, not framed, no referrer."""

_templates: Final = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, locale: str, **values: object) -> str:
    """Return a template in a language."""
    return _templates.get_template(template).render(
        t=texts_in(locale), locale=locale, languages=NAMES, **values
    )


def emphasised(sentence: str) -> Markup:
    """Return a sentence as HTML in which `<b>` is markup, and whatever else it says is text."""
    return Markup(re.sub(r"&lt;(/?b)&gt;", r"<\1>", str(escape(sentence))))


_templates.filters["emphasised"] = emphasised


def page(
    content: str, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Return a page as an answer."""
    return HTMLResponse(content, status, {**UNKEPT, **(headers or {})})


def moment(at: datetime, locale: str, time_zone: str | None) -> str:
    """Return a time in a locale's format, in the tenant's time zone."""
    try:
        zone = ZoneInfo(time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        # Another application may have written any value.
        zone = ZoneInfo("UTC")
    return str(format_datetime(at, "d MMM, HH:mm", tzinfo=zone, locale=locale.replace("-", "_")))
