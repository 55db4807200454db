"""What a destination's answer means for the next try, where it answers over HTTP; knows no destination."""

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
"""Of what a destination may ask for: news is stale then."""
PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that are about now, and not about what was sent."""


def judge(reply: Reply, hidden: Iterable[str]) -> DeliveryResult:
    """Return what an answer means: 2xx is delivered, a refusal (4xx) is for good unless it is about now."""
    return DeliveryResult(
        ok=200 <= reply.status < 300,
        permanent=400 <= reply.status < 500 and reply.status not in PASSING,
        retry_after=wait_of(reply.retry_after, datetime.now(UTC)),
        status=reply.status,
        answer=words(reply.body.decode("utf-8", "replace"), hidden),
    )


def unanswered(error: Unanswered) -> DeliveryResult:
    """Return what silence means: try again."""
    return DeliveryResult(ok=False, answer=f"no answer: {error}")


def wait_of(header: str | None, now: datetime) -> timedelta | None:
    """Return how long Retry-After asks to wait, in seconds or until a date; None: it asks nothing."""
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
    """Return the beginning of an answer on one line, what it may echo of ours left out."""
    for secret in hidden:
        if secret:
            text = text.replace(secret, "***")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:WORDS]


def links(message: Message) -> list[str]:
    """Return a message's links, each of which lets anybody in who has it."""
    return [item.link for item in message.items if item.link]
