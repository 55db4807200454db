"""What every endpoint shares: its route, the caller, the app, and the answer; no rows and no words."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.connection.retry import persist
from db.ingest.queue import COMMIT_TIMEOUT
from db.reads.tokens import Operator
from receiver.app import App
from receiver.http.auth import require_operator
from receiver.http.problems import Forbidden, NotFound

Endpoint = Callable[["Call"], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request of an operator."""

    request: Request
    operator: Operator
    app: App

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant that the token is limited to; None: all."""
        return self.operator.tenant_id

    def id(self) -> UUID:
        """Return the path's id; an invalid id is treated as unknown."""
        try:
            return UUID(self.request.path_params["id"])
        except ValueError:
            raise NotFound("There is nothing with this id.") from None

    def require_all_tenants(self) -> None:
        """Refuse an operator of one tenant."""
        if self.tenant_id is not None:
            raise Forbidden("This needs an operator's token for all tenants.")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, behind a valid operator's token."""

    method: str
    path: str
    endpoint: Endpoint
    asks_gateway: bool = False
    """A GET that does more than read, and takes as long as the gateway does."""

    def route(self, app: App, check: "Callable[[Operation, Request], None]") -> Route:
        """Return the route; what only reads is tried again until `COMMIT_TIMEOUT` ends.

        `check` refuses requests that no operation takes, once the caller is known.
        """
        reads_only = self.method == "GET" and not self.asks_gateway

        async def guarded(request: Request) -> Response:
            async with asyncio.timeout(COMMIT_TIMEOUT.total_seconds()):
                call = await persist(lambda: _call(app, request))
                check(self, request)
                # A HEAD goes to a GET's route, and is not tried again.
                if reads_only and request.method == "GET":
                    return await persist(lambda: self.endpoint(call))
            return await self.endpoint(call)

        return Route(self.path, guarded, methods=[self.method])


@dataclass(frozen=True, slots=True)
class PublicOperation:
    """One GET of one path that needs no token."""

    path: str
    endpoint: Callable[[App], Awaitable[Response]]
    method: str = "GET"

    def route(self, app: App) -> Route:
        """Return the route."""

        async def answer(_request: Request) -> Response:
            return await self.endpoint(app)

        return Route(self.path, answer, methods=[self.method])


async def _call(app: App, request: Request) -> Call:
    authorization = request.headers.get("Authorization", "")
    return Call(request, await require_operator(authorization, app.tokens, app.settings), app)


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
