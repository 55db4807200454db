"""The database dies in all the ways that it can: the service waits a little, says so, and goes on."""

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from db.connection.pool import POOL_SIZE
from db.connection.types import Connection
from db.embedded.server import Embedded, run_embedded
from receiver.sandbox import open_fleet
from tests.conftest import connected, reachable_folder, superuser_dsn
from tests.factories import Evolution
from tests.support.eventually import eventually
from tests.test_kill import free_port, serving

SETTINGS = {
    "ZAPWATCH_SECRET_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
    "ZAPWATCH_STALE_AFTER_SECONDS": "2",
    "ZAPWATCH_TERMINAL_GRACE_SECONDS": "0.3",
}
PATIENCE = 8
"""Seconds in which every answer must be there: 5, and what a busy machine may add."""
LONG = 6
"""Seconds after which a request that came when the database went has run out of patience."""
SHORT = 3
"""Seconds of an outage that every request outlasts; on a busy machine a start may take longer."""
BACK_WITHIN = 10
"""Seconds after the database's return until a webhook is taken: 5, and what a busy machine may add."""


@dataclass
class Database:
    """A PostgreSQL that dies when told to."""

    data_dir: Path
    embedded: Embedded
    _stack: AsyncExitStack

    @classmethod
    async def start(cls, data_dir: Path) -> "Database":
        """Return one that runs."""
        stack = AsyncExitStack()
        return cls(data_dir, await stack.enter_async_context(run_embedded(data_dir)), stack)

    async def stop(self) -> None:
        """End it in order."""
        await self._stack.aclose()

    async def start_again(self) -> None:
        """Start it on the same data, at the same address."""
        self.embedded = await self._stack.enter_async_context(run_embedded(self.data_dir))

    @property
    def children(self) -> list[int]:
        """The processes that the server has begun, its sessions among them."""
        pid = self.embedded.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def superuser(self) -> str:
        """The superuser's way in."""
        return superuser_dsn(self.embedded.dsn, self.data_dir)


@dataclass
class Seen:
    """What clients saw during an outage."""

    webhooks: list[httpx.Response] = field(default_factory=list)
    alive: list[httpx.Response] = field(default_factory=list)
    ready: list[httpx.Response] = field(default_factory=list)
    lists: list[httpx.Response] = field(default_factory=list)


@dataclass
class Scene:
    """The service as a process of its own, its database, and a gateway that it probes."""

    database: Database
    client: httpx.AsyncClient
    pid: int
    probed: list[float]
    numbers: "count[int]" = field(default_factory=count)

    async def channel(self, **fields: Any) -> tuple[str, str, Evolution]:
        """Register a channel; return its id, its webhook address and its instance."""
        instance = fields.pop("instance", f"loja-{next(self.numbers)}")
        body = {"provider": "evolution_api", "instance": instance, **fields}
        answer = await self.client.post("/channels", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"], answer.json()["webhook_url"], Evolution(instance)

    async def hear(self, hook: str, *events: object) -> None:
        """Post webhooks, each of which must be committed."""
        for event in events:
            assert (await self.client.post(hook, json=event)).status_code == 204

    def crowd(self) -> httpx.AsyncClient:
        """Return a client for many requests at once, which closes what it has opened."""
        return httpx.AsyncClient(base_url=self.client.base_url, headers=self.client.headers, timeout=20)

    async def descriptors(self) -> int:
        """Return how many files and sockets the service has open when its pool is full."""
        async with self.crowd() as client:
            await asyncio.gather(*(client.get("/channels") for _ in range(40)))
        await self.client.get("/healthz")
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    async def watch(self, seconds: float, *hooks: tuple[str, Evolution]) -> Seen:
        """Ask again and again for so long: channels' webhooks, and how the service is."""
        seen = Seen()
        until = time.monotonic() + seconds

        async def again(answers: list[httpx.Response], ask: Callable[[], Awaitable[httpx.Response]]) -> None:
            while time.monotonic() < until:
                answers.append(await ask())
                await asyncio.sleep(0.05)  # a client that isn't in a hurry

        async with self.crowd() as client:
            await asyncio.gather(
                *(again(seen.webhooks, partial(flip, client, hook, instance)) for hook, instance in hooks),
                again(seen.alive, partial(client.get, "/healthz")),
                again(seen.ready, partial(client.get, "/readyz")),
                again(seen.lists, partial(client.get, "/channels")),
            )
        return seen


async def flip(client: httpx.AsyncClient, hook: str, instance: Evolution) -> httpx.Response:
    """Post an event."""
    return await client.post(hook, json=instance.update("connecting"))


async def until(is_so: Callable[[], Awaitable[object]], within: float = 20) -> float:
    """Wait until it is so and return how many seconds that took."""
    began = time.monotonic()
    await eventually(is_so, within=within)
    return time.monotonic() - began


@pytest.fixture(scope="module")
async def scene() -> AsyncIterator[Scene]:
    with reachable_folder() as folder:
        database = await Database.start(folder / "data")
        settings = {"ZAPWATCH_DATABASE_URL": database.embedded.dsn, **SETTINGS}
        try:
            async with (
                open_fleet() as fleet,
                serving(folder / "unused", free_port(), **settings) as (process, client),
            ):
                host = await fleet.evolution()
                instance = host.add("probed")
                scene = Scene(database, client, process.pid, instance.probed)
                await scene.channel(instance="probed", api_url=host.url, api_key=instance.key)
                yield scene
                assert process.returncode is None
        finally:
            await database.stop()


@asynccontextmanager
async def stopped(database: Database) -> AsyncIterator[None]:
    """Stop it in order and start it again: a restart."""
    await database.stop()
    try:
        yield
    finally:
        await database.start_again()


@asynccontextmanager
async def killed(database: Database) -> AsyncIterator[None]:
    """Kill the server and all its sessions, and start it again."""
    for pid in (database.embedded.pid, *database.children):
        os.kill(pid, signal.SIGKILL)
    await database.embedded.died()
    await database.stop()
    try:
        yield
    finally:
        await database.start_again()


@asynccontextmanager
async def crashed(database: Database) -> AsyncIterator[None]:
    """Kill one process of the server, which then drops all sessions and recovers by itself."""
    os.kill(database.children[0], signal.SIGKILL)
    yield


@asynccontextmanager
async def hung(database: Database) -> AsyncIterator[None]:
    """Have all its processes hang, with their sockets open."""
    pids = (database.embedded.pid, *database.children)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def full(database: Database) -> AsyncIterator[None]:
    """Drop the service's connections and let it make no new ones: too many are there already."""
    async with connected(database.superuser) as admin:
        await admin.execute("alter role zapwatch connection limit 0")
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'zapwatch'"
        )
        try:
            yield
        finally:
            await admin.execute("alter role zapwatch connection limit -1")


OUTAGES = [(stopped, 0.5), (killed, 0.5), (crashed, 0.5), (hung, LONG), (full, LONG)]


@pytest.mark.parametrize(("outage", "seconds"), OUTAGES)
async def test_outage_is_answered_with_503_and_over_when_the_database_is_back(
    scene: Scene, outage: Any, seconds: float
) -> None:
    _, known, instance = await scene.channel()
    # Whose this address is must be asked of the database.
    _, new, stranger = await scene.channel()
    await scene.hear(known, instance.update("open"))
    before = await scene.descriptors()
    began = time.monotonic()

    async with outage(scene.database):
        watching = asyncio.create_task(scene.watch(seconds, (known, instance), (new, stranger)))
        await asyncio.wait([watching], timeout=seconds)
    lasted = time.monotonic() - began

    await is_taken_again(scene, known, instance)
    seen = await watching
    expect_patience(seen)
    if seconds == LONG:
        for answers in (seen.webhooks, seen.ready, seen.lists):
            assert any(answer.status_code == 503 for answer in answers)
    elif lasted < SHORT:
        # It was back before anybody had lost patience.
        assert {answer.status_code for answer in seen.webhooks + seen.lists} == {200, 204}
    await expect_work(scene)
    assert await scene.descriptors() <= before + 2


async def test_exhausted_pool_holds_up_no_known_channel_and_those_who_wait_for_it_are_told(
    scene: Scene,
) -> None:
    _, known, instance = await scene.channel()
    _, new, stranger = await scene.channel()
    await scene.hear(known, instance.update("open"))
    before = await scene.descriptors()

    async with scene.crowd() as client, connected(scene.database.superuser) as admin, admin.transaction():
        await admin.execute("lock table zapwatch_quarantine")
        crowd = [asyncio.create_task(client.post(new, content=b"not JSON")) for _ in range(50)]
        await until(lambda: is_exhausted(admin))
        seen = await scene.watch(1, (known, instance))
        answers = await asyncio.gather(*crowd)

    assert {answer.status_code for answer in seen.webhooks} == {204}
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.status_code for answer in seen.ready} == {503}
    seen.webhooks += answers
    expect_patience(seen)
    await is_taken_again(scene, new, stranger)
    await expect_work(scene)
    assert await scene.descriptors() <= before + 2


async def is_exhausted(admin: Connection) -> bool:
    """Whether every connection of the pool waits for the lock."""
    waiting = await admin.fetchval("select count(*) from pg_locks where not granted")
    return bool(waiting >= POOL_SIZE)


async def is_taken_again(scene: Scene, hook: str, instance: Evolution) -> float:
    """Wait until a webhook is taken and return how many seconds that took."""

    async def is_taken() -> bool:
        return (await flip(scene.client, hook, instance)).status_code == 204

    return await until(is_taken, BACK_WITHIN)


def expect_patience(seen: Seen) -> None:
    """Nobody waited for long or was told anything but to come again, and the process lived."""
    assert {answer.status_code for answer in seen.alive} == {200}
    assert max(answer.elapsed.total_seconds() for answer in seen.alive) < 3
    for answer in seen.webhooks + seen.ready + seen.lists:
        assert answer.elapsed.total_seconds() < PATIENCE
        assert answer.status_code in {200, 204, 503}
        if answer.status_code == 503:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert int(answer.headers["Retry-After"]) > 0


async def expect_work(scene: Scene) -> None:
    """The service is ready, takes a new channel, fires its deadline, and probes."""
    probed = len(scene.probed)
    await until(lambda: is_ready(scene))
    channel, hook, instance = await scene.channel()
    await scene.hear(hook, instance.update("open"), instance.update("close", 401))

    async def has_incident() -> object:
        return (await scene.client.get(f"/channels/{channel}/state")).json()["incident"]

    async def is_probed() -> bool:
        return len(scene.probed) > probed

    await until(has_incident)
    await until(is_probed)


async def is_ready(scene: Scene) -> bool:
    """Whether the service says that it is ready."""
    return (await scene.client.get("/readyz")).status_code == 200
