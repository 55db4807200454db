"""How a gateway may fail to answer a probe."""

from enum import Enum, auto
from typing import Final


class Fault(Enum):
    """What becomes of a request instead of the right answer."""

    HANG = auto()
    """Accepted, and never a byte: docs/provider-facts.md#wapi-silence."""
    HANG_BODY = auto()
    """The headers, then silence."""
    REFUSED = auto()
    """Connection refused, the port closed. Of a host; for a single channel it is `RESET`."""
    RESET = auto()
    """The connection reset once the request has come."""
    SLOW = auto()
    """The right answer, after three seconds."""
    HUGE = auto()
    """200 and an endless body."""
    NOT_FOUND = auto()
    """404 in the gateway's own words for a lost instance."""
    ROUTE_NOT_FOUND = auto()
    """404 in the gateway's own words for a path it doesn't know."""
    HTML_NOT_FOUND = auto()
    """404 with a page."""
    ERROR_200 = auto()
    """200 with `{"error": true}`."""
    NO_STATE = auto()
    """200 without the state."""
    UNAUTHORIZED = auto()
    """401 whatever the key."""
    UNAVAILABLE = auto()
    """503; Evolution's is that of a missing licence."""
    SERVER_ERROR = auto()
    """500."""
    HTML_200 = auto()
    """200 with a proxy's page."""
    GARBAGE = auto()
    """200 with a body that is no JSON."""
    EMPTY_400 = auto()
    """400 and `{}`: what Evolution makes of an error that isn't Baileys' own, a time-out among them."""
    FLIPPING = auto()
    """Another state from ask to ask: Evolution's close and connecting while WhatsApp is unreachable."""


ABOUT_A_CHANNEL: Final = frozenset(
    {
        Fault.NOT_FOUND,
        Fault.ROUTE_NOT_FOUND,
        Fault.ERROR_200,
        Fault.NO_STATE,
        Fault.UNAUTHORIZED,
        Fault.FLIPPING,
    }
)
"""Faults of a host that touch only questions about a channel's state; the others touch every request."""
