"""Turns HTTP answers of destinations into delivery results; knows no kind of destination."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from receiver.alerts.message import DeliveryResult, Message
from receiver.outbound.client import Reply, Unanswered

WORDS: Final = 500
"""Characters of an answer that are kept."""
LONGEST_WAIT: Final = timedelta(days=1)
"""The longest delay that a destination may request: later the alert is stale."""
PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that are temporary, and not about the message."""


def judge(reply: Reply, hidden: Iterable[str]) -> DeliveryResult:
    """Return the result of an answer: 2xx is delivered; 4xx is permanent unless it is in `PASSING`."""
    return DeliveryResult(
        ok=200 <= reply.status < 300,
        permanent=400 <= reply.status < 500 and reply.status not in PASSING,
        retry_after=wait_of(reply.retry_after, datetime.now(UTC)),
        status=reply.status,
        answer=words(reply.body.decode("utf-8", "replace"), hidden),
    )


def unanswered(error: Unanswered) -> DeliveryResult:
    """Return the result of a call without an answer: try again."""
    return DeliveryResult(ok=False, answer=f"no answer: {error}")


def wait_of(header: str | None, now: datetime) -> timedelta | None:
    """Return the delay in a Retry-After header (seconds or a date); None: there is none."""
    header = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", header, re.ASCII):
        return min(timedelta(seconds=int(header)), LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
    return min(max(until - now, timedelta(0)), LONGEST_WAIT)


def words(text: str, hidden: Iterable[str]) -> str:
    """Return the beginning of an answer on one line, with the `hidden` texts masked."""
    for secret in hidden:
        if secret:
            text = text.replace(secret, "***")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:WORDS]


def links(message: Message) -> list[str]:
    """Return a message's links, which are secrets."""
    grouped = [channel.link for item in message.items if item.group for channel in item.group.channels]
    return [link for link in (*(item.link for item in message.items), *grouped) if link]
