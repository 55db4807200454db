"""Sends messages by e-mail through the destination's own mail server; never retries: the dispatcher does.

The Message-ID is made of the message's id, so that mailboxes recognise a repeated try.
"""

import asyncio
import socket
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import format_datetime, parseaddr
from html import escape
from typing import Annotated, Final, Literal, Protocol, runtime_checkable

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
)
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from receiver.alerts.message import DeliveryResult, Message
from receiver.alerts.notifiers.config import Config, read
from receiver.alerts.notifiers.http_answer import links, unanswered, words
from receiver.alerts.notifiers.texts import RenderedMessage, text_of
from receiver.i18n.reasons import language
from receiver.outbound.client import Unanswered
from receiver.outbound.egress import EgressPolicy

PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
"""Default ports by encryption."""
GOODBYE: Final = 1.0
"""Seconds to end a connection after the message was accepted."""
ACCEPTED: Final = 250
"""SMTP's code for an accepted message."""
FOR_GOOD: Final = 500
"""From this SMTP code on a refusal is permanent."""
SPECIAL: Final = frozenset('<>()[]\\,;:"')
"""Characters by which an address could break out of a command or a header."""


def _mailbox(text: str) -> str:
    address = parseaddr(text)[1]
    local, at, domain = address.rpartition("@")
    if not (text.isprintable() and at and local and domain) or SPECIAL & set(address) or " " in address:
        raise PydanticCustomError("mailbox", "Must be an address such as ana@example.com")
    return text


def _recipient(text: str) -> str:
    if parseaddr(_mailbox(text))[1] != text:
        raise PydanticCustomError("mailbox", "Must be an address without a name")
    return text


class EmailConfig(Config):
    """The mail server, the sender and the recipients."""

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\s/@]+$")]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: Annotated[str, Field(max_length=320)] | None = None
    password: Annotated[str, Field(max_length=1024)] | None = None
    sender: Annotated[str, Field(alias="from", max_length=320), AfterValidator(_mailbox)]
    to: Annotated[
        list[Annotated[str, Field(max_length=320), AfterValidator(_recipient)]],
        Field(min_length=1, max_length=50),
    ]

    @model_validator(mode="after")
    def _is_whole(self) -> "EmailConfig":
        if (self.user is None) != (self.password is None):
            raise PydanticCustomError("login", "A user and a password belong together")
        return self

    @property
    def secrets(self) -> list[str]:
        """The password in its encodings in commands, which a server may repeat."""
        if not self.password:
            return []
        both = f"\0{self.user or ''}\0{self.password}"
        return [b64encode(both.encode()).decode(), b64encode(self.password.encode()).decode(), self.password]


@runtime_checkable
class _Abortable(Protocol):
    """A transport that writes, as uvloop's do, which are no `asyncio.Transport`."""

    def abort(self) -> None: ...


class EmailNotifier:
    """The notifier of mailboxes."""

    kind: Final = "email"
    is_grouped: Final = True
    # Without TLS the password can be read on the network.
    credentials: Final = {"password": ("host", "port", "tls")}

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the normal form."""
        return read(EmailConfig, config).stored()

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return all but the password."""
        return {
            name: value for name, value in read(EmailConfig, config).stored().items() if name != "password"
        }

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Hand it to the mail server once."""
        email = read(EmailConfig, config)
        hidden = [*email.secrets, *links(message)]
        try:
            return await _deliver(email, letter(email, message), outgoing, hidden)
        except TimeoutError:
            return DeliveryResult(ok=False, answer="no answer: timed out")
        except Unanswered as error:
            return unanswered(error)
        except SMTPResponseException as error:
            return _refused(error.code, error.message, hidden)
        except SMTPRecipientsRefused as error:
            worst = min(error.recipients, key=lambda one: one.code)
            return _refused(worst.code, worst.message, hidden)
        except SMTPException as error:
            return DeliveryResult(ok=False, answer=words(f"no answer: {error}", hidden))
        except OSError as error:
            return DeliveryResult(ok=False, answer=f"no answer: {type(error).__name__}")


async def _deliver(
    email: EmailConfig, mail: EmailMessage, outgoing: EgressPolicy, hidden: list[str]
) -> DeliveryResult:
    end = asyncio.get_running_loop().time() + outgoing.seconds
    opened = await outgoing.connect(email.host, email.port or PORTS[email.tls])
    server = _server(email, opened, outgoing)
    try:
        async with asyncio.timeout_at(end):
            await server.connect()
            refused, answer = await server.send_message(mail)
        with suppress(SMTPException, OSError):
            # The message is accepted: an error now must not cause another try.
            await server.quit(timeout=GOODBYE)
    finally:
        # Close alone would wait for the server to read pending data, which it may never do.
        transport = server.transport
        server.close()
        if isinstance(transport, _Abortable):
            transport.abort()
    some = f" (refused: {', '.join(refused)})" if refused else ""
    return DeliveryResult(ok=True, status=ACCEPTED, answer=words(answer + some, hidden))


def _server(email: EmailConfig, opened: socket.socket, outgoing: EgressPolicy) -> SMTP:
    address = opened.getsockname()[0]
    return SMTP(
        hostname=email.host,
        sock=opened,
        # Otherwise the own host name is resolved by a blocking call.
        local_hostname=f"[IPv6:{address}]" if ":" in address else f"[{address}]",
        use_tls=email.tls == "tls",
        start_tls=email.tls == "starttls",
        tls_context=outgoing.tls,
        username=email.user,
        password=email.password,
        timeout=outgoing.seconds,
    )


def _refused(code: int, answer: str, hidden: list[str]) -> DeliveryResult:
    return DeliveryResult(ok=False, permanent=code >= FOR_GOOD, status=code, answer=words(answer, hidden))


def letter(email: EmailConfig, message: Message) -> EmailMessage:
    """Return a message as an e-mail, in plain text and as simple HTML."""
    text = text_of(message)
    mail = EmailMessage(POLICY)
    mail["From"] = email.sender
    mail["To"] = ", ".join(email.to)
    mail["Subject"] = text.subject
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{message.id}@{parseaddr(email.sender)[1].rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text.body)
    mail.add_alternative(page(text, language(message.locale)), subtype="html")
    return mail


def page(text: RenderedMessage, locale: str) -> str:
    """Return a text as HTML that loads nothing."""
    parts = []
    for item in text.items:
        lines = [f"<strong>{escape(item.head)}</strong>", *map(escape, item.details)]
        if item.link:
            lines.append(f'<a href="{escape(item.link)}">{escape(text.link_label)}</a>')
        parts.append("<p>" + "<br>\n".join(lines) + "</p>")
    if text.more:
        parts.append(f"<p>{escape(text.more)}</p>")
    return f'<!doctype html>\n<html lang="{locale}"><meta charset="utf-8"><body>\n' + "\n".join(parts) + "\n"
