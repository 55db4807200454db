"""What a process takes on at once is bounded, and what is above it is refused quickly and unread."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.http.load_shedding import CONNECTIONS, DESCRIPTORS, Admission, Load, connections_within
from tests.support.eventually import eventually

AT_MOST = 3


class Desk:
    """An app whose answers wait, and how much it took and refused."""

    def __init__(self) -> None:
        self.load, self.refused, self.read = Load(), 0, 0
        self.open = asyncio.Event()
        routes = [Route("/webhooks/x", self._answer, methods=["POST"]), Route("/healthz", _alive)]
        limit = Middleware(Admission, load=self.load, on_refused=self._refuse, at_most=AT_MOST)
        transport = httpx.ASGITransport(Starlette(routes=routes, middleware=[limit]))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://zapwatch")

    async def _answer(self, request: Request) -> Response:
        self.read += len(await request.body())
        await self.open.wait()
        return Response(status_code=204)

    def _refuse(self) -> None:
        self.refused += 1


async def _alive(_request: Request) -> Response:
    return Response()


@pytest.fixture
async def full() -> AsyncIterator[Desk]:
    """A desk that has taken all it takes."""
    desk = Desk()
    async with desk.client, asyncio.TaskGroup() as tasks:
        for _ in range(AT_MOST):
            tasks.create_task(desk.client.post("/webhooks/x", content=b"ab"))
        await eventually(lambda: desk.read == 2 * AT_MOST)
        yield desk
        desk.open.set()


async def test_request_too_many_is_told_to_come_again_and_is_not_read(full: Desk) -> None:
    answer = await full.client.post("/webhooks/x", content=b"abc")

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (full.read, full.refused) == (2 * AT_MOST, 1)


async def test_service_is_alive_however_busy(full: Desk) -> None:
    assert (await full.client.get("/healthz")).status_code == 200


async def test_what_is_answered_makes_room(full: Desk) -> None:
    full.open.set()
    await eventually(lambda: not full.load.requests)

    assert (await full.client.post("/webhooks/x")).status_code == 204


def test_descriptor_limit_is_raised_as_far_as_it_may() -> None:
    """In a process of its own: nobody may raise again what was lowered."""
    program = (
        "import resource as r; from receiver.http.load_shedding import raise_descriptor_limit as up;"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, 500)); print(up(), *r.getrlimit(r.RLIMIT_NOFILE))"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout.split() == ["500", "500", "500"]


def test_connections_leave_half_of_the_descriptors_alone() -> None:
    assert connections_within(1024) == 512
    assert connections_within(DESCRIPTORS) == CONNECTIONS
    assert connections_within(10**6) == CONNECTIONS
