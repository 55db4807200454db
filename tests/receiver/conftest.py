"""An app of the ops API alone, on a real database, and ways to ask it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import pytest

from db.connection.types import Pool
from db.registry.tokens import create_operator_token
from receiver.app import App
from receiver.ingest.operator_signals import OperatorSignals
from receiver.providers import PROVIDERS
from receiver.service.composition import compose, http_app
from receiver.settings import Settings
from receiver.telemetry.metrics import Metrics
from receiver.timings import NORMAL
from tests.conftest import Server, connected
from tests.receiver.alerts.sink import Sink, open_sink
from tests.support.hostile import Rig, served
from tests.support.service import zapwatch
from tests.support.serving import address, listening

KEY = bytes(range(32))


@dataclass
class Api:
    """The app under test, an operator of all tenants, and which channels it asked to be applied."""

    app: App
    client: httpx.AsyncClient
    pool: Pool
    token: str
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


def client_of(app: App, token: str | None) -> httpx.AsyncClient:
    """Return a client of the app that sends this token."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(http_app(app))
    return httpx.AsyncClient(transport=transport, base_url="http://zapwatch", headers=headers)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A destination of alerts that answers 200."""
    async with open_sink() as opened:
        yield opened


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


class Recording(OperatorSignals):
    """Applies nothing, and records what was to be applied."""

    def __init__(self, app: App) -> None:
        super().__init__(app.pool, app.writer, app.prober, app.guard)
        self.applied: list[UUID] = []

    async def apply_now(self, channel_id: UUID) -> None:
        """Record the channel."""
        self.applied.append(channel_id)


@asynccontextmanager
async def running_api(dsn: str) -> AsyncIterator[Api]:
    """Yield the app on this database, without its loops."""
    settings = Settings(public_url="https://watch.example", database_url=dsn, secret_keys=(KEY,))
    async with AsyncExitStack() as stack:
        app = await compose(stack, settings, NORMAL, Metrics())
        recording = Recording(app)
        app = replace(app, operator_signals=recording)
        async with app.pool.acquire() as connection:
            token = await create_operator_token(connection)
        async with client_of(app, token) as client:
            yield Api(app, client, app.pool, token, recording.applied)


@pytest.fixture(scope="module")
async def rig(server: Server, template: str) -> AsyncIterator[Rig]:
    """The service of these tests; each of them registers channels of its own."""
    async with (
        server.database(template) as name,
        connected(server.dsn(name)) as connection,
        zapwatch(server.dsn(name)) as z,
        served(http_app(z.app)) as port,
    ):
        gateways = {}
        for provider in PROVIDERS:
            url = f"http://127.0.0.1:9/{provider}"
            body = {"provider": provider, "base_url": url, "api_key": "k"}
            answer = await z.client.post("/gateways", json=body)
            gateways[provider] = url, answer.json()["webhook_url"]
        yield Rig(z, connection, port, gateways, count())
