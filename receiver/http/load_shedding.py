"""Limits of requests and connections; excess requests get 503 at once, without being read."""

import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from receiver.http.problems import Unavailable, answer

IN_FLIGHT: Final = 4000
"""Requests that one process has accepted and not answered."""
CONNECTIONS: Final = 8000
"""Connections that one process keeps, slow callers' and idle ones among them."""
DESCRIPTORS: Final = 2 * CONNECTIONS
"""Files that a process should be allowed to open: as many again for probes, and what else is open."""
ALWAYS: Final = "/healthz"
"""Never refused: a supervisor must not end a service because it is busy."""
BUSY: Final = Unavailable("Too many requests are in flight; try again.")


@dataclass(slots=True)
class Load:
    """What a process has in flight now."""

    requests: int = 0


class Admission:
    """ASGI middleware: counts requests in flight, and refuses those above the limit."""

    def __init__(
        self, app: ASGIApp, load: Load, on_refused: Callable[[], None], at_most: int = IN_FLIGHT
    ) -> None:
        self.app = app
        self._load = load
        self._on_refused = on_refused
        self._at_most = at_most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        load = self._load
        if load.requests >= self._at_most and scope.get("path") != ALWAYS:
            self._on_refused()
            await answer(BUSY)(scope, receive, send)
            return
        load.requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            load.requests -= 1


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as it may, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, DESCRIPTORS) if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connections_within(descriptors: int) -> int:
    """Return the limit of connections: half of the open files allowed, so that the other half stays free."""
    return min(CONNECTIONS, descriptors // 2)
