"""A mail server on loopback that keeps what it got, and refuses whom it is told to."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PASSWORD = "pa55-of-the-mailbox"


@dataclass
class Post:
    """A mail server's other half: what it got, and what it says to whom."""

    port: int = 0
    got: list[EmailMessage] = field(default_factory=list)
    offered: list[EmailMessage] = field(default_factory=list)
    """What it got, and what it refused."""
    recipients: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    refusing: dict[str, str] = field(default_factory=dict)
    """What is answered to a recipient."""
    answer: str = "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refusing:
            return self.refusing[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = message_from_bytes(cast(bytes, envelope.content), policy=default)
        self.offered.append(mail)
        if self.answer.startswith("250"):
            self.got.append(mail)
            self.recipients += envelope.rcpt_tos
        return self.answer

    def allow(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: LoginPassword
    ) -> AuthResult:
        """Return whether a login is right; one that is wrong is repeated, as it never should be."""
        self.users.append(login.login.decode())
        if login.password == PASSWORD.encode():
            return AuthResult(success=True)
        words = f"535 5.7.8 nobody has the password {login.password.decode()}"
        return AuthResult(success=False, handled=False, message=words)


@asynccontextmanager
async def open_post(
    starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Post]:
    """Yield a mail server on loopback; it takes logins where the connection is encrypted."""
    post = Post()

    def serve() -> SMTP:
        return SMTP(
            post,
            hostname="mail.example",
            tls_context=starttls,
            require_starttls=starttls is not None,
            auth_require_tls=tls is None,
            authenticator=post.allow,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        post.port = server.sockets[0].getsockname()[1]
        yield post


def part(mail: EmailMessage, kind: str) -> str:
    """Return the text of a mail, `plain` or `html`."""
    found = mail.get_body((kind,))
    assert found is not None
    return str(cast(EmailMessage, found).get_content())
