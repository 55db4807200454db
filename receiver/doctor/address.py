"""Checks that the public address leads to this service; describes why an answer did not come."""

import ssl
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from socket import gaierror
from typing import Final
from urllib.parse import urlsplit

from db.diagnosis import Finding, note, problem
from receiver.doctor.installation import Installation
from receiver.outbound.client import Client, Unanswered
from receiver.providers.report import document_of
from receiver.settings import variable

ANSWER_WITHIN: Final = timedelta(seconds=5)


async def check_base_url(seen: Installation) -> list[Finding]:
    """Find webhook addresses that only this machine can resolve."""
    if seen.settings.public_url is not None or not seen.channels:
        return []
    host = urlsplit(seen.settings.base_url).hostname or ""
    clients = "gateways on this machine" if _is_private(host) else "gateways that know this address"
    what = f"Webhook addresses begin with {seen.settings.base_url}, which only {clients} can reach."
    return [note("no_public_url", what, f"Set {variable('public_url')} to what gateways reach.")]


async def check_public_url(public_url: str, client: Client) -> list[Finding]:
    """Find a public address that does not lead here, as far as this machine can see, or that lacks TLS."""
    found = []
    wrong = await _wrong_at(public_url, client)
    if wrong is not None:
        do = "Put right proxy, name or certificate. If this machine reaches it, a gateway still may not."
        found.append(problem("public_url", f"PUBLIC_URL {public_url} does not lead here: {wrong}.", do))
    parts = urlsplit(public_url)
    if parts.scheme == "http" and not _is_private(parts.hostname or ""):
        what = f"PUBLIC_URL {public_url} is without TLS, so others can read the secret in webhook addresses."
        found.append(note("no_tls", what, "Serve it by https."))
    return found


async def _wrong_at(public_url: str, client: Client) -> str | None:
    try:
        reply = await client.get(f"{public_url}/healthz")
    except Unanswered as error:
        return why_unanswered(error)
    if reply.status != 200:
        return f"it answers HTTP {reply.status}"
    alive = (document_of(reply.body) or {}).get("status") == "alive"
    return None if alive else "another page answers there"


def why_unanswered(error: Unanswered) -> str:
    """Return why there was no answer, as far as an operator can act on it."""
    if error.timed_out:
        return f"no answer within {ANSWER_WITHIN.total_seconds():.0f} s"
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"TLS: {cause.verify_message}"
            case ssl.SSLError():
                return f"TLS: {cause.reason}"
            case ConnectionRefusedError():
                return "the connection is refused"
            case gaierror():
                return "its name is unknown"
    return f"no answer ({error})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
