"""Sends messages to a Telegram chat by a bot; as plain text, so that no name can be markup.

The bot's token is in the address of each call. Links aren't previewed: Telegram would open reconnect links.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

import orjson
from pydantic import BeforeValidator, Field

from receiver.alerts.message import DeliveryResult, Message
from receiver.alerts.notifiers.config import Config, Url, bare, read
from receiver.alerts.notifiers.http_answer import LONGEST_WAIT, judge, links, unanswered, words
from receiver.alerts.notifiers.texts import text_of
from receiver.outbound.client import Reply, Unanswered
from receiver.outbound.egress import EgressPolicy

API: Final = "https://api.telegram.org"
ITEMS_SHOWN: Final = 5
"""Alerts in words; more might not fit."""
LIMIT: Final = 4096
"""UTF-16 units that Telegram takes in a message."""


def _digits(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TelegramConfig(Config):
    """The bot's token and the chat; `api_url` is for a self-hosted bot API server."""

    token: Annotated[str, Field(pattern=r"^[0-9]{1,20}:[A-Za-z0-9_-]{20,100}$")]
    chat_id: Annotated[str, BeforeValidator(_digits), Field(pattern=r"^(-?[0-9]{1,20}|@[A-Za-z0-9_]{4,64})$")]
    api_url: Url | None = None


class TelegramNotifier:
    """The notifier of Telegram chats."""

    kind: Final = "telegram"
    is_grouped: Final = True
    credentials: Final = {"token": ("api_url",)}

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the normal form."""
        return read(TelegramConfig, config).stored()

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the ids of the chat and the bot."""
        telegram = TelegramConfig.model_validate(config)
        public = {"chat_id": telegram.chat_id, "bot_id": telegram.token.partition(":")[0]}
        return public | ({"api_url": bare(telegram.api_url)} if telegram.api_url else {})

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Send the message once."""
        telegram = TelegramConfig.model_validate(config)
        url = f"{(telegram.api_url or API).rstrip('/')}/bot{telegram.token}/sendMessage"
        body = orjson.dumps(document(telegram.chat_id, message))
        try:
            reply = await outgoing.post(url, body, {"Content-Type": "application/json"})
        except Unanswered as error:
            return unanswered(error)
        return _judge(reply, [telegram.token, *links(message)])


def document(chat_id: str, message: Message) -> Mapping[str, object]:
    """Return the body of sendMessage; without `parse_mode` nothing in it is markup."""
    text = text_of(message, ITEMS_SHOWN)
    content = text.body if len(text.items) == 1 else f"{text.subject}\n\n{text.body}"
    return {"chat_id": chat_id, "text": _cut(content), "link_preview_options": {"is_disabled": True}}


def _cut(text: str) -> str:
    units = text.encode("utf-16-le")[: 2 * LIMIT]
    return units.decode("utf-16-le", "ignore")


def _judge(reply: Reply, hidden: list[str]) -> DeliveryResult:
    """Return the result; Telegram puts its description and retry delay into the body."""
    sent = judge(reply, hidden)
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return sent
    if not isinstance(answer, dict):
        return sent
    description, parameters = answer.get("description"), answer.get("parameters")
    if isinstance(description, str):
        sent = sent._replace(answer=words(description, hidden))
    elif sent.ok:
        # The body repeats the whole message.
        sent = sent._replace(answer="ok")
    seconds = parameters.get("retry_after") if isinstance(parameters, dict) else None
    if isinstance(seconds, int) and seconds >= 0:
        sent = sent._replace(retry_after=min(timedelta(seconds=min(seconds, 10**9)), LONGEST_WAIT))
    return sent
