"""Whether a webhook carries the secret that was set with its address; refuses none and loses none.

True events may come without it: a gateway's global webhook sends no headers, an instance's row keeps old ones
when somebody sets only the address, and retries carry those of their first attempt. So one that doesn't carry
it is taken, and what it says of a session is confirmed by a probe at once.
docs/provider-facts.md#evolution-global-webhook, #evolution-webhook-row
"""

import hmac
from collections.abc import Iterable
from typing import Final

from db.ingest.entry import ParsedEvent
from db.registry.tokens import hash_token
from receiver.providers.report import SECRET_HEADER
from statemachine.model import Trigger

HEADER: Final = SECRET_HEADER.lower().encode()
NEWS: Final = frozenset({Trigger.OPENED, Trigger.DROPPED, Trigger.UNPAIRED})
"""What opens and resolves incidents; the others come in floods, in which each would ask for a probe."""


def carries_secret(headers: Iterable[tuple[bytes, bytes]], secret_hash: bytes | None) -> bool:
    """Say whether a webhook carries its address's secret; True for an address without one."""
    if secret_hash is None:
        return True
    given = next((value for name, value in headers if name == HEADER), b"")
    return hmac.compare_digest(hash_token(given.decode("latin-1")), secret_hash)


def doubted(told: ParsedEvent) -> ParsedEvent:
    """Return what a webhook says that nobody vouches for."""
    return told._replace(needs_probe=True) if told.trigger in NEWS else told
