"""Addresses of gateways in one form each, so that the same gateway is never registered twice."""

from typing import Final
from urllib.parse import SplitResult, urlsplit

# Where a provider is one service for all; the others are hosted by their users.
DEFAULTS: Final = {"wapi": "https://api.w-api.app/v1", "twilio": "https://messaging.twilio.com"}
PROVIDERS: Final = ("evolution_api", "wapi", "twilio", "waha")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class AddressError(ValueError):
    """The address can't be one of a gateway; the message says why."""


def normalise(provider: str, address: str | None) -> str:
    """Return the address with lower-case host, without default port and trailing slash.

    None is the provider's own, or `""` (unconfigured) where it has none. The provider's own host without
    a path gets the provider's path: W-API's `/v1` is often left out.
    """
    default = DEFAULTS.get(provider, "")
    if address is None or not address.strip():
        return default
    parts = _split(address.strip())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in {None, _DEFAULT_PORTS[parts.scheme]} else f":{parts.port}"
    bare = f"{parts.scheme}://{host}{port}"
    path = parts.path.rstrip("/")
    if default and not path and default.startswith(bare + "/"):
        return default
    return bare + path


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise AddressError("This is not an address.") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0:
        raise AddressError("An address begins with http:// or https:// and names a host.")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise AddressError("An address has no query, fragment, user or password here.")
    if not all(" " < char < "\x7f" for char in address):
        raise AddressError("An address has only printable ASCII characters.")
    return parts
