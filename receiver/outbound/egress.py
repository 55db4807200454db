"""Egress to destinations, whose addresses are untrusted; never to a network that their owner may not reach.

An address is checked after its name was resolved, and that same address is connected to, so that a name that
resolves differently a moment later (DNS rebinding) gains nothing. No redirect is followed, no proxy is used,
and only the beginning of an answer is read. An operator's destinations may be anywhere, a tenant's in public
networks and those of OUTGOING_ALLOW.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from receiver.outbound.client import OutgoingPost, Reply, Unanswered, Unconnected, post, system_tls
from receiver.settings import Network

TIMEOUT: Final = timedelta(seconds=10)
"""How long one try may take in all, including the resolution of the name."""
CONNECT_TIMEOUT: Final = timedelta(seconds=3)
"""How long one of several addresses may take to accept a connection, before the next is tried."""
ANSWER_LIMIT: Final = 4096
"""Bytes of an answer that are read: enough for an error message."""
ADDRESSES_TRIED: Final = 3
"""Of one name; more would not fit into the time."""
LOOKUPS: Final = 32
"""Names resolved at a time, apart from gateways': one that hangs occupies a thread for long."""
GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
NAT64: Final = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that embed an IPv4 address (RFC 6052)."""
PORTS: Final = {"http": 80, "https": 443}

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Result = TypeVar("Result")

_resolving: Final = ThreadPoolExecutor(LOOKUPS, "resolving")


class EgressForbidden(Unanswered):
    """Nothing was sent: the destination is in a network that its owner may not reach."""


class EgressPolicy:
    """Where one owner's destinations may be: in public networks and those of `allow`; None: anywhere."""

    def __init__(
        self,
        allow: Collection[Network] | None = (),
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._allow = allow
        self._resolve = resolve or _addresses
        self.tls: Final = tls or system_tls()
        self.seconds: Final = timeout.total_seconds()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Return the answer to one POST; raise `Unanswered`, which names neither the address nor a header."""
        host, port = _host_and_port(url)
        call = OutgoingPost(url, headers, body, ANSWER_LIMIT, CONNECT_TIMEOUT.total_seconds())

        async def exchange(address: str) -> Reply:
            return await post(call, address, self.tls)

        return await self._reach(host, port, exchange)

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return a connected socket, non-blocking; raise `Unanswered`."""

        async def dial(address: str) -> socket.socket:
            return await _dial(address, port)

        return await self._reach(host, port, dial)

    async def _reach(self, host: str, port: int, go: Callable[[str], Awaitable[Result]]) -> Result:
        try:
            async with asyncio.timeout(self.seconds):
                *first, last = await self._open_addresses(host, port)
                for address in first:
                    try:
                        return await go(address)
                    except Unconnected:
                        continue
                return await go(last)
        except TimeoutError:
            raise Unanswered("timed out", timed_out=True, reached=False) from None

    async def _open_addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            found = await self._resolve(host, port)
        # ValueError: a host that IDNA refuses.
        except (OSError, ValueError):
            raise Unconnected("its name can't be resolved", reached=False) from None
        usable = [address for address in found if self.is_open(address)]
        if not usable:
            raise EgressForbidden("its address is in a network that OUTGOING_ALLOW doesn't have")
        return usable[:ADDRESSES_TRIED]

    def is_open(self, address: str) -> bool:
        """Return whether the owner may reach an IP address."""
        if self._allow is None:
            return True
        effective = _effective(ip_address(address))
        return _is_public(effective) or any(effective in network for network in self._allow)


class Egress(NamedTuple):
    """The two egress policies: of operators and of tenants."""

    operators: EgressPolicy
    tenants: EgressPolicy

    @classmethod
    def allowing(cls, networks: Collection[Network]) -> "Egress":
        """Return the policies with OUTGOING_ALLOW for tenants."""
        return cls(EgressPolicy(None), EgressPolicy(networks))

    def of(self, tenant_id: UUID | None) -> EgressPolicy:
        """Return the policy of a destination's owner; None: operators."""
        return self.operators if tenant_id is None else self.tenants


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        if parts.scheme in PORTS and parts.hostname:
            return parts.hostname, parts.port or PORTS[parts.scheme]
    except ValueError:
        pass
    raise EgressForbidden("not an http or https address")


def _effective(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one embeds, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    if address.is_multicast or not address.is_global:
        return False
    return isinstance(address, IPv4Address) or address in GLOBAL_UNICAST


async def _addresses(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().run_in_executor(
        _resolving, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _dial(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setblocking(False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT.total_seconds()):
            await asyncio.get_running_loop().sock_connect(opened, (address, port))
    except (OSError, TimeoutError) as error:
        opened.close()
        raise Unconnected(type(error).__name__, reached=isinstance(error, ConnectionRefusedError)) from None
    except BaseException:
        opened.close()
        raise
    return opened
