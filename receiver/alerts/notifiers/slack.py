"""Sends messages to a Slack channel by an incoming webhook, or to any service that accepts the same format.

The address is the secret. Links aren't unfurled: Slack would open reconnect links.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import orjson

from receiver.alerts.message import DeliveryResult, Message
from receiver.alerts.notifiers.config import Config, Url, origin, read
from receiver.alerts.notifiers.http_answer import judge, links, unanswered
from receiver.alerts.notifiers.texts import RenderedItem, RenderedMessage, text_of
from receiver.outbound.client import Unanswered
from receiver.outbound.egress import EgressPolicy

HEADER_LIMIT: Final = 150
"""Characters that Slack takes in a header."""


class SlackConfig(Config):
    """The address of the incoming webhook."""

    url: Url


class SlackNotifier:
    """The notifier of Slack channels."""

    kind: Final = "slack"
    is_grouped: Final = True
    # The address is the secret: a new one replaces it entirely.
    credentials: Final[Mapping[str, Collection[str]]] = {}

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the normal form."""
        return read(SlackConfig, config).stored()

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the server's origin."""
        return {"url": origin(SlackConfig.model_validate(config).url)}

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Post the message once."""
        url = SlackConfig.model_validate(config).url
        body = orjson.dumps(document(text_of(message)))
        try:
            reply = await outgoing.post(url, body, {"Content-Type": "application/json"})
        except Unanswered as error:
            return unanswered(error)
        return judge(reply, [url, *links(message)])


def document(text: RenderedMessage) -> Mapping[str, object]:
    """Return a message in Slack's format; `text` is for notifications, which show no blocks."""
    return {
        "text": _escaped(text.subject),
        "blocks": list(_blocks(text)),
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _blocks(text: RenderedMessage) -> Iterator[Mapping[str, object]]:
    if len(text.items) > 1:
        yield {"type": "header", "text": {"type": "plain_text", "text": text.subject[:HEADER_LIMIT]}}
    for item in text.items:
        yield _section("\n".join(_lines(item, text.link_label)))
    if text.more:
        yield _section(text.more)


def _lines(item: RenderedItem, label: str) -> Iterator[str]:
    yield _escaped(item.head)
    yield from map(_escaped, item.details)
    if item.link:
        yield f"<{_escaped(item.link)}|{_escaped(label)}>"


def _section(words: str) -> Mapping[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": words}}


def _escaped(words: str) -> str:
    """Return text in which a name can neither link nor mention (`<!channel>`)."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
