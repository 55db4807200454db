"""An app of the ops API alone, on a real database, and ways to ask it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette

from db.apply import acknowledge
from db.connections import Pool
from db.lookups import Lookups
from db.pool import open_pool
from db.reads import find_channels
from db.tokens import create_operator_token
from db.vault import Vault
from receiver.alerts import NOTIFIERS
from receiver.alerts.in_app import InApp
from receiver.alerts.trial import Trial
from receiver.api import routes
from receiver.auth import Tokens
from receiver.errors import exception_handlers
from receiver.jobs.loop import LoopRunner
from receiver.metrics import Metrics
from receiver.outgoing import Outgoing
from receiver.providers import PROVIDERS
from receiver.settings import Settings
from tests.conftest import Server, connected
from tests.receiver.hostile import Rig, served
from tests.receiver.service import zapwatch
from tests.receiver.serving import address, listening

KEY = bytes(range(32))


@dataclass
class Api:
    """The app under test, an operator of all tenants, and which channels it asked to be applied."""

    app: Starlette
    client: httpx.AsyncClient
    pool: Pool
    applied: list[UUID] = field(default_factory=list)

    async def channel(self, instance: str = "loja-01", **fields: Any) -> dict[str, Any]:
        """Register a channel and return the answer."""
        body = {"provider": "evolution_api", "instance": instance, **fields}
        answer = await self.client.post("/channels", json=body)
        assert answer.status_code == 201, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def tenant(self, name: str = "Loja", **fields: Any) -> str:
        """Make a tenant and return its id."""
        answer = await self.client.post("/tenants", json={"name": name, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    @asynccontextmanager
    async def operator_of(self, tenant_id: str) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a client with a token of this tenant."""
        async with self.pool.acquire() as connection:
            token = await create_operator_token(connection, tenant_id=UUID(tenant_id))
        async with client_of(self.app, token) as client:
            yield client


def client_of(app: Starlette, token: str | None) -> httpx.AsyncClient:
    """Return a client of the app that sends this token."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://zapwatch", headers=headers)


def build_app(pool: Pool, apply_now: Callable[[UUID], Awaitable[None]]) -> Starlette:
    """Return an app of the routes alone."""
    app = Starlette(routes=routes, exception_handlers=exception_handlers)
    app.state.pool = pool
    app.state.vault = Vault([KEY])
    app.state.settings = Settings(public_url="https://watch.example")
    app.state.tokens = Tokens(pool)
    app.state.channels = Lookups(partial(find_channels, pool))
    app.state.metrics = Metrics()
    app.state.loops = LoopRunner()
    app.state.apply_now = apply_now
    app.state.notifiers = notifiers = {**NOTIFIERS, InApp.kind: InApp(pool)}
    app.state.try_destination = Trial(pool, notifiers, Outgoing(allow=None), Outgoing()).send

    async def acknowledge_now(incident_id: UUID) -> None:
        async with pool.acquire() as connection:
            await acknowledge(connection, incident_id)

    app.state.acknowledge = acknowledge_now
    return app


@pytest.fixture
def silent_gateway() -> Iterator[str]:
    """The address of a gateway that takes questions and never answers: who was made due stays due."""
    with listening() as listener:
        yield address(listener)


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    """The app with an empty database and an operator of all tenants."""
    async with running_api(dsn) as opened:
        yield opened


@pytest.fixture(scope="session")
async def refusing(server: Server, template: str) -> AsyncIterator[Api]:
    """The same, shared by tests that ask only for what is refused and so leave nothing behind."""
    async with server.database(template) as name, running_api(server.dsn(name)) as opened:
        yield opened


@asynccontextmanager
async def running_api(dsn: str) -> AsyncIterator[Api]:
    """Yield the app on this database."""
    applied: list[UUID] = []

    async def apply_now(channel_id: UUID) -> None:
        applied.append(channel_id)

    pool = await open_pool(dsn)
    app = build_app(pool, apply_now)
    async with pool:
        async with pool.acquire() as connection:
            token = await create_operator_token(connection)
        async with client_of(app, token) as client:
            yield Api(app, client, pool, applied)


@pytest.fixture(scope="module")
async def rig(server: Server, template: str) -> AsyncIterator[Rig]:
    """The service of these tests; each of them registers channels of its own."""
    async with (
        server.database(template) as name,
        connected(server.dsn(name)) as connection,
        zapwatch(server.dsn(name)) as z,
        served(z.app) as port,
    ):
        gateways = {}
        for provider in PROVIDERS:
            url = f"http://127.0.0.1:9/{provider}"
            body = {"provider": provider, "base_url": url, "api_key": "k"}
            answer = await z.client.post("/gateways", json=body)
            gateways[provider] = url, answer.json()["webhook_url"]
        yield Rig(z, connection, port, gateways, count())
