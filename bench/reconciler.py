"""Probes a second: the service's reconciler, with every answer committed, against a bare httpx loop.

Both ask the same gateways the same questions, so many at a time. The bare loop reads the answer as JSON, and
that is all. Rounds take turns, because a machine is not the same from one minute to the next. Each begins
with open connections: those of before may have ended while the other side took its turn.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from statistics import median
from time import perf_counter
from typing import Final

import httpx
import orjson

from bench import sweeps
from bench.database import GIGABYTE, open_database
from bench.gateways import Gateway, open_gateways
from bench.table import Figure, at_least
from db.connection.pool import connect_writer, open_pool
from db.connection.types import Connection
from db.ingest.apply import Applied
from db.ingest.writer import Writer
from db.reconcile.claims import PER_GATEWAY
from db.registry.channels import ChannelSpec, register_channel
from db.vault import KEY_BYTES, Vault
from receiver.jobs.loop import LoopRunner
from receiver.outbound.client import KEPT_FOR, Client, open_client
from receiver.providers import PROVIDERS
from receiver.providers.report import Question
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import Prober, ProbeResult
from receiver.reconcile.reconciler import Reconciler
from receiver.service.composition import installation_rules
from receiver.settings import Settings
from receiver.telemetry.metrics import Metrics
from receiver.timings import NORMAL

PROVIDER: Final = "evolution_api"
LEAST: Final = 0.8
"""What share of the bare loop's probes the service must make."""
CHANNELS: Final = 2000
ROUNDS: Final = 7
QUICK_ROUNDS: Final = 3
GATEWAYS: Final = (1, 10)
LONGEST: Final = timedelta(seconds=60)
"""A round that takes longer has lost an answer."""
DUE: Final = """
update zapwatch_states set probe_due_at = now() - random() * interval '1 s', probe_claimed_until = null
"""


async def run(quick: bool) -> AsyncIterator[Figure]:
    """Yield the probes a second of both, and their ratio, for one gateway and for several."""
    for hosts in GATEWAYS:
        for figure in await _compare(hosts, QUICK_ROUNDS if quick else ROUNDS):
            yield figure
    for figure in await sweeps.measure(*(sweeps.QUICK if quick else sweeps.MANY)):
        yield figure


async def _compare(hosts: int, rounds: int) -> list[Figure]:
    bare, ours = [], []
    async with (
        open_database(GIGABYTE) as dsn,
        open_gateways(hosts, CHANNELS // hosts) as gateways,
        _open_loop(gateways) as loop,
        _open_service(dsn, gateways) as service,
    ):
        for _ in range(1 + rounds):
            bare.append(CHANNELS / await loop.round())
            ours.append(CHANNELS / await service.round())
    return _figures(hosts, bare[1:], ours[1:])  # the first round opens connections and fills caches


def _figures(hosts: int, bare: Sequence[float], ours: Sequence[float]) -> list[Figure]:
    subject = f"probes a second, {hosts} gateway{'s' if hosts > 1 else ''} × {PER_GATEWAY} at a time"
    ratios = [mine / other for mine, other in zip(ours, bare, strict=True)]
    ratio = median(ours) / median(bare)
    return [
        Figure(subject, "bare httpx loop", f"{median(bare):,.0f}", f"{min(bare):,.0f} to {max(bare):,.0f}"),
        Figure(
            subject, "Zapwatch, committed", f"{median(ours):,.0f}", f"{min(ours):,.0f} to {max(ours):,.0f}"
        ),
        at_least(subject, "ratio", ratio, LEAST, f"{min(ratios):.2f} to {max(ratios):.2f}"),
    ]


class _Loop:
    """The bare loop: a client for each gateway, with as many connections as it may be asked at a time."""

    def __init__(self, gateways: Sequence[Gateway], clients: Sequence[httpx.AsyncClient]) -> None:
        self._clients = clients
        self._questions = [_questions(gateway) for gateway in gateways]

    async def round(self) -> float:
        """Ask about every channel once, and return how many seconds that took."""
        async with asyncio.TaskGroup() as tasks:
            for http, questions in zip(self._clients, self._questions, strict=True):
                for question in questions[:PER_GATEWAY]:
                    tasks.create_task(_ask(http, iter([question])))
        gc.collect()
        began = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for http, questions in zip(self._clients, self._questions, strict=True):
                left = iter(questions)
                for _ in range(PER_GATEWAY):
                    tasks.create_task(_ask(http, left))
        return perf_counter() - began


async def _ask(http: httpx.AsyncClient, questions: Iterator[Question]) -> None:
    for question in questions:
        try:
            answer = await http.get(question.path, headers=question.headers)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):  # it closed a kept connection
            answer = await http.get(question.path, headers=question.headers)
        orjson.loads(answer.content)


def _questions(gateway: Gateway) -> list[Question]:
    asked = (PROVIDERS[PROVIDER].ask(name, key) for name, key in gateway.keys.items())
    return [Question(gateway.url + question.path, question.headers) for question in asked]


@asynccontextmanager
async def _open_loop(gateways: Sequence[Gateway]) -> AsyncIterator[_Loop]:
    async with AsyncExitStack() as stack:
        yield _Loop(gateways, [await stack.enter_async_context(_http()) for _ in gateways])


def _http() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=Settings().probe_timeout.total_seconds(),
        limits=httpx.Limits(
            max_connections=None,
            max_keepalive_connections=PER_GATEWAY,
            keepalive_expiry=KEPT_FOR.total_seconds(),
        ),
        headers={"User-Agent": "zapwatch", "Accept": "application/json"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


class _Service:
    """The service's parts that probe, composed as `receiver/service/composition.py` does."""

    def __init__(
        self, connection: Connection, client: Client, reconciler: Reconciler, gateways: Sequence[Gateway]
    ) -> None:
        self._connection = connection
        self._client = client
        self._reconciler = reconciler
        self._first = [question for gateway in gateways for question in _questions(gateway)[:PER_GATEWAY]]
        self._left = 0
        self._done = asyncio.Event()

    def committed(self, entries: int) -> None:
        """Note that so many answers are committed."""
        self._left -= entries
        if self._left <= 0:
            self._done.set()

    async def round(self) -> float:
        """Have every channel probed once, and return how many seconds passed until the last commit."""
        await self._connection.execute(DUE)
        self._left = CHANNELS
        self._done.clear()
        async with asyncio.TaskGroup() as tasks:
            for question in self._first:
                tasks.create_task(self._client.get(question.path, question.headers))
        gc.collect()
        began = perf_counter()
        probing = asyncio.create_task(LoopRunner().run(self._reconciler.loop()))
        async with asyncio.timeout(LONGEST.total_seconds()):
            await self._done.wait()
        took = perf_counter() - began
        probing.cancel()
        await asyncio.wait([probing])
        return took


@asynccontextmanager
async def _open_service(dsn: str, gateways: Sequence[Gateway]) -> AsyncIterator[_Service]:
    settings, vault, metrics = Settings(), Vault([bytes(KEY_BYTES)]), Metrics()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(await open_pool(dsn))
        client = await stack.enter_async_context(open_client(settings.probe_timeout))
        connection = await stack.enter_async_context(pool.acquire())
        await _register(connection, vault, gateways)

        def committed(applied: Applied, entries: int, seconds: float) -> None:
            metrics.committed(applied, entries, seconds)
            service.committed(entries)

        writer = Writer(partial(connect_writer, dsn), installation_rules(settings), committed)
        answers = GatewayAnswers(NORMAL.offline_for)

        def probed(result: ProbeResult) -> None:
            metrics.probed(result)
            answers.note(result)

        prober = Prober(pool, vault, client, settings.retry_after / 2, probed)
        guard = OfflineGuard(pool, writer, prober, client, answers, settings)
        reconciler = Reconciler(pool, writer, prober, guard, settings.probe_timeout)
        service = _Service(connection, client, reconciler, gateways)
        writing = asyncio.create_task(writer.run())
        try:
            yield service
        finally:
            writing.cancel()
            await asyncio.wait([writing])


async def _register(connection: Connection, vault: Vault, gateways: Sequence[Gateway]) -> None:
    async with connection.transaction():
        for gateway in gateways:
            for name, key in gateway.keys.items():
                new = ChannelSpec(provider=PROVIDER, instance=name, api_url=gateway.url, api_key=key)
                await register_channel(connection, vault, new)
