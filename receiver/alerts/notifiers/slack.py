"""News in a Slack channel, by an incoming webhook; others speak its dialect, so any address will do.

The address is the secret. Links aren't unfurled: Slack would open the way back.
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
    """Where it goes."""

    url: Url


class SlackNotifier:
    """Tells a Slack channel."""

    kind: Final = "slack"
    is_grouped: Final = True
    # The address is the secret: another one leaves nothing of it behind.
    credentials: Final[Mapping[str, Collection[str]]] = {}

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return its normal form."""
        return read(SlackConfig, config).stored()

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return whose server it is."""
        return {"url": origin(SlackConfig.model_validate(config).url)}

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Post it once."""
        url = SlackConfig.model_validate(config).url
        body = orjson.dumps(document(text_of(message)))
        try:
            reply = await outgoing.post(url, body, {"Content-Type": "application/json"})
        except Unanswered as error:
            return unanswered(error)
        return judge(reply, [url, *links(message)])


def document(text: RenderedMessage) -> Mapping[str, object]:
    """Return a text as Slack takes it; `text` is for notifications, which show no blocks."""
    return {
        "text": _escaped(text.subject),
        "blocks": list(_blocks(text)),
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _blocks(text: RenderedMessage) -> Iterator[Mapping[str, object]]:
    if len(text.news) > 1:
        yield {"type": "header", "text": {"type": "plain_text", "text": text.subject[:HEADER_LIMIT]}}
    for news in text.news:
        yield _section("\n".join(_lines(news, text.link_label)))
    if text.more:
        yield _section(text.more)


def _lines(news: RenderedItem, label: str) -> Iterator[str]:
    yield _escaped(news.head)
    yield from map(_escaped, news.details)
    if news.link:
        yield f"<{_escaped(news.link)}|{_escaped(label)}>"


def _section(words: str) -> Mapping[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": words}}


def _escaped(words: str) -> str:
    """Return words in which a name can neither link nor call anybody (`<!channel>`)."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
