"""What every endpoint shares: who asks, what the app holds for it, and the answer; no rows and no words."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from db.claims import Target
from db.connections import Pool
from db.deliveries import Tested
from db.destinations import Config, Destination
from db.lookups import Lookups
from db.patience import persist
from db.queue import PATIENCE
from db.reads import ChannelKey, ChannelRow
from db.vault import Vault
from receiver.alerts.notice import Notifier
from receiver.auth import Operator, Tokens, require_operator
from receiver.client import Client
from receiver.errors import Forbidden, NotFound
from receiver.jobs.loop import LoopRunner
from receiver.metrics import Metrics
from receiver.probe import Probed
from receiver.recovery import Tried
from receiver.settings import Settings

Endpoint = Callable[["Call"], Awaitable[Response]]


class Services:
    """What `app.state` holds for the endpoints; the composition root puts it there."""

    pool: Pool
    vault: Vault
    client: Client
    settings: Settings
    tokens: Tokens
    metrics: Metrics
    loops: LoopRunner
    channels: Lookups[ChannelKey, ChannelRow]
    apply_now: Callable[[UUID], Awaitable[None]]
    """Applies what is due on a channel at once: its rules changed."""
    check_now: Callable[[Target], Awaitable[Probed]]
    """Probes a channel and has the answer applied; raises `Unaskable` and `Unavailable`."""
    restart_now: Callable[[UUID, UUID | None], Awaitable[Tried | None]]
    """Gives one order that may bring a channel back; raises `Declined`, `OverBudget` and `Unaskable`."""
    notifiers: Mapping[str, Notifier]
    """Who tells, by kind of destination."""
    try_destination: Callable[[Destination, Config], Awaitable[Tested]]
    """Sends one message now, that says it is a test, and notes what came of it; raises `TooSoon`."""
    acknowledge: Callable[[UUID], Awaitable[None]]
    """Notes that an operator has seen an incident; the first time counts."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request of an operator."""

    request: Request
    operator: Operator
    services: Services

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant whose things may be seen; None: all."""
        return self.operator.tenant_id

    def id(self) -> UUID:
        """Return the path's id; what isn't an id is the id of nothing."""
        try:
            return UUID(self.request.path_params["id"])
        except ValueError:
            raise NotFound("There is nothing with this id.") from None

    def require_all_tenants(self) -> None:
        """Refuse an operator of one tenant."""
        if self.tenant_id is not None:
            raise Forbidden("This needs an operator's token for all tenants.")


def operators_only(
    endpoint: Endpoint, *, asks_gateway: bool = False
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return the endpoint behind a valid operator's token; what only reads is tried until patience ends.

    `asks_gateway`: a GET that does more than read, and takes as long as the gateway does.
    """

    async def guarded(request: Request) -> Response:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            call = await persist(lambda: _call(request))
            if request.method == "GET" and not asks_gateway:
                return await persist(lambda: endpoint(call))
        return await endpoint(call)

    guarded.__name__ = endpoint.__name__
    guarded.__doc__ = endpoint.__doc__
    return guarded


async def _call(request: Request) -> Call:
    return Call(request, await require_operator(request), services(request))


def services(request: Request) -> Services:
    """Return what the app holds for its endpoints."""
    return cast(Services, request.app.state)


class Json(Response):
    """JSON with times in UTC ending in Z."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z, default=_plain)


def _plain(value: object) -> object:
    # asyncpg's UUID is a subclass, which orjson doesn't take for one.
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
