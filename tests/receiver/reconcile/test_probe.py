"""Probing: the questions, whose key goes with them, controls, and probes beside what else happens."""

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from db.connection.pool import open_pool
from db.connection.types import Connection, Pool
from db.reconcile.claims import PER_GATEWAY, ProbeTarget, probe_target
from db.registry.channels import ChannelSpec, register_channel
from db.vault import Vault
from receiver.outbound.client import open_client
from receiver.providers import PROVIDERS
from receiver.reconcile.probe import Prober, ProbeResult
from receiver.sandbox import Fault, Fleet, open_fleet
from tests.conftest import Server, connected
from tests.factories import Evolution
from tests.support.eventually import eventually
from tests.support.service import KEY, Zapwatch
from tests.support.service import served as service
from tests.support.serving import address, listening, serving
from tests.support.story import PROVIDERS as PROVIDER_OF
from tests.support.story import story

NEVER = timedelta(hours=1)
UNHURRIED: dict[str, Any] = {"stale_after": NEVER, "retry_after": NEVER}
"""Settings under which nobody is asked again by itself."""
NAMES = (
    "Loja São Paulo/01",
    "a b",
    "100%",
    "%2F",
    "..",
    ".",
    "../../instance/fetchInstances",
    "loja?x=1",
    "loja#1",
    "a+b&c=d;e",
    "Loja 🏪",
    "'\"<>\\",
    "http://127.0.0.1:9/",
)
VAULT = Vault([KEY])


@pytest.mark.parametrize(
    ("provider", "instance", "path", "header"),
    [
        (
            "evolution_api",
            "Loja São Paulo/01",
            "/instance/connectionState/Loja%20S%C3%A3o%20Paulo%2F01",
            ("apikey", "k3y"),
        ),
        ("evolution_api", "..", "/instance/connectionState/%2E%2E", ("apikey", "k3y")),
        (
            "wapi",
            "LITE-A&b=c/1",
            "/instance/status-instance?instanceId=LITE-A%26b%3Dc%2F1",
            ("Authorization", "Bearer k3y"),
        ),
        (
            "twilio",
            "XE/1",
            "/v2/Channels/Senders/XE%2F1",
            ("Authorization", f"Basic {b64encode(b'k3y').decode()}"),
        ),
        ("waha", "loja 1%", "/api/sessions/loja%201%25", ("X-Api-Key", "k3y")),
    ],
    ids=["evolution", "evolution-dots", "wapi", "twilio", "waha"],
)
def test_question_is_the_path_and_header_of_the_gateway(
    provider: str, instance: str, path: str, header: tuple[str, str]
) -> None:
    question = PROVIDERS[provider].ask(instance, "k3y")

    assert (question.path, dict(question.headers)) == (path, dict([header]))
    assert "k3y" not in repr(question)


@pytest.mark.parametrize("dialect", ["evolution", "wapi", "twilio"])
async def test_names_of_all_kinds_are_asked_for_and_found(dsn: str, dialect: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await getattr(told.fleet, dialect)()
        instances = [host.add(name) for name in NAMES]
        channels = [await told.watch(host, instance, state=None) for instance in instances]

        for channel in channels:
            await told.becomes(channel, "open")

        assert [len(instance.probed) for instance in instances] == [1] * len(NAMES)


async def test_gateways_key_serves_channels_without_their_own(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        instances = [host.add(f"loja-{n}") for n in range(3)]
        gateway = {"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
        assert (await told.z.client.post("/gateways", json=gateway)).status_code == 201

        without = await told.z.channel(instances[0].name, api_url=host.url)
        own = await told.watch(host, instances[1])
        wrong = await told.z.channel(instances[2].name, api_url=host.url, api_key="wrong")
        checked = await told.z.client.post(f"/channels/{wrong}/check")

        await told.becomes(without, "open")
        assert (await told.z.state(own))["state"] == "open"
        assert checked.json()["outcome"] == "unauthorized"


@dataclass
class Probing:
    """A prober and the fleet that it asks, with nothing else running."""

    fleet: Fleet
    prober: Prober
    connection: Connection
    seen: list[ProbeResult] = field(default_factory=list)

    async def channel(self, host: Any, instance: Any, key: str | None = None) -> UUID:
        """Register a channel that is probed, and return its id."""
        new = ChannelSpec(
            provider=PROVIDER_OF[type(host).__name__],
            instance=instance.name,
            api_url=host.url,
            api_key=key or instance.key,
        )
        channel_id, _ = await register_channel(self.connection, VAULT, new)
        await self.connection.execute(
            "update zapwatch_states set probe_due_at = now() where channel_id = $1", channel_id
        )
        return channel_id

    async def target(self, channel_id: UUID) -> ProbeTarget:
        """Return whom to ask about a channel."""
        found = await probe_target(self.connection, channel_id, None)
        assert found is not None
        return found[0]

    async def outcomes(self, channels: Sequence[UUID]) -> list[str]:
        """Probe channels at the same time and return what comes out."""
        targets = [await self.target(id) for id in channels]
        return [it.outcome for it in await asyncio.gather(*(self.prober.probe(target) for target in targets))]


@pytest.fixture
async def probing(dsn: str, connection: Connection) -> AsyncIterator[Probing]:
    seen: list[ProbeResult] = []
    async with (
        open_fleet() as fleet,
        await open_pool(dsn) as pool,
        open_client(timedelta(seconds=5)) as client,
    ):
        yield Probing(fleet, _prober(pool, client, seen), connection, seen)


def _prober(pool: Pool, client: Any, seen: list[ProbeResult]) -> Prober:
    return Prober(pool, VAULT, client, timedelta(minutes=1), seen.append)


async def test_every_probe_is_told_of_with_its_outcome(probing: Probing) -> None:
    host = await probing.fleet.evolution()
    channel = await probing.channel(host, host.add("loja-01"))

    probed = await probing.prober.probe(await probing.target(channel))

    assert probing.seen == [probed]
    assert (probed.outcome, probed.http_status) == ("open", 200)
    assert probed.began_at <= probed.ended_at
    assert probed.entry.channel_id == channel
    assert probing.prober.in_flight == 0


async def test_w_api_404_is_a_loss_when_another_channel_gets_another_answer(probing: Probing) -> None:
    host = await probing.fleet.wapi()
    instances = [host.add() for _ in range(4)]
    channels = [await probing.channel(host, instance) for instance in instances]

    for instance in instances[1:]:
        instance.vanish()

    assert await probing.outcomes(channels) == ["open"] + ["session_missing"] * 3


async def test_w_api_404_for_everybody_is_the_gateways_and_asked_once_for_all(probing: Probing) -> None:
    host = await probing.fleet.wapi()
    instances = [host.add() for _ in range(10)]
    channels = [await probing.channel(host, instance) for instance in instances]

    host.fault = Fault.HTML_NOT_FOUND

    assert await probing.outcomes(channels) == ["unreachable"] * 10
    # Each was asked about for itself, and three as the control of all.
    assert sum(len(instance.probed) for instance in instances) == 10 + 3
    assert {probed.http_status for probed in probing.seen} == {404}


async def test_two_w_api_channels_are_too_few_to_blame_their_gateway(probing: Probing) -> None:
    host = await probing.fleet.wapi()
    instances = [host.add() for _ in range(2)]
    channels = [await probing.channel(host, instance) for instance in instances]

    host.fault = Fault.NOT_FOUND

    assert await probing.outcomes(channels) == ["session_missing"] * 2
    assert [len(instance.probed) for instance in instances] == [1, 1]


async def test_channels_that_cannot_be_asked_are_no_control(probing: Probing) -> None:
    host = await probing.fleet.wapi()
    instances = [host.add() for _ in range(4)]
    channels = [await probing.channel(host, instance) for instance in instances]
    await probing.connection.execute(
        "update zapwatch_channels set api_key = '\\x00' where channel_id = any ($1)", channels[1:]
    )

    instances[0].vanish()

    assert await probing.outcomes(channels[:1]) == ["session_missing"]


async def test_no_control_outlives_its_prober(probing: Probing) -> None:
    host = await probing.fleet.wapi()
    instances = [host.add() for _ in range(3)]
    channels = [await probing.channel(host, instance) for instance in instances]
    instances[0].vanish()
    for instance in instances[1:]:
        instance.fault = Fault.HANG

    asking = asyncio.create_task(probing.outcomes(channels[:1]))
    await eventually(lambda: instances[1].probed or instances[2].probed)
    await probing.prober.aclose()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert sum(len(instance.probed) for instance in instances) == 2


async def test_controls_of_two_gateways_are_apart(probing: Probing) -> None:
    broken, whole = await probing.fleet.wapi(), await probing.fleet.wapi()
    lost = whole.add()
    of_broken = [await probing.channel(broken, broken.add()) for _ in range(3)]
    of_whole = [await probing.channel(whole, instance) for instance in (lost, whole.add(), whole.add())]

    broken.fault = Fault.HTML_NOT_FOUND
    lost.vanish()

    assert await probing.outcomes([*of_broken, *of_whole]) == [
        *["unreachable"] * 3, "session_missing", "open", "open",
    ]  # fmt: skip


async def test_hanging_gateway_holds_up_no_other(dsn: str) -> None:
    """Forty channels are due on a gateway that hangs; the other one's are asked again and again meanwhile."""
    busy: dict[str, Any] = {"stale_after": timedelta(seconds=0.5), "probe_timeout": timedelta(seconds=30)}
    async with story(dsn, **busy) as told:
        hanging, healthy = await told.fleet.evolution(), await told.fleet.evolution()
        hanging.fault = Fault.HANG
        stuck = [hanging.add(f"loja-{n}") for n in range(2 * PER_GATEWAY)]
        for instance in stuck:
            await told.watch(hanging, instance, state=None)
        await eventually(lambda: sum(len(instance.probed) for instance in stuck) >= PER_GATEWAY)

        instances = [healthy.add(f"loja-{n}") for n in range(5)]
        for instance in instances:
            await told.watch(healthy, instance)
        await asyncio.gather(*(told.asked(instance, 3) for instance in instances))

        # No place there was freed: whoever is asked first is still waiting for an answer.
        assert sum(len(instance.probed) for instance in stuck) == PER_GATEWAY


async def test_rows_that_somebody_keeps_locked_hold_up_no_other_of_their_gateway(
    dsn: str, connection: Connection
) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instances = [host.add(f"loja-{n}") for n in range(PER_GATEWAY + 1)]
        channels = await told.watch_all(host, instances)

        async with connection.transaction():
            await connection.execute(
                "select from zapwatch_states where channel_id = any ($1::uuid[]) for update", channels[:-1]
            )
            # All the others are longer due with each of these.
            await told.asked(instances[-1], 4)


async def test_probing_goes_on_when_the_database_is_back(
    dsn: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    database = urlsplit(dsn).path.removeprefix("/")
    async with (
        connected(server.admin_dsn("postgres")) as admin,
        story(dsn, stale_after=timedelta(seconds=0.5)) as told,
    ):
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        await admin.execute(f"alter database {database} connection limit 0")
        await admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", database
        )
        await eventually(lambda: _waits(caplog, "reconciler"))
        await admin.execute(f"alter database {database} connection limit -1")

        await told.asked(instance, 3)
        instance.vanish()
        await told.becomes(channel, "disconnected", "session_missing")


def _waits(caplog: pytest.LogCaptureFixture, loop: str) -> bool:
    return any(f"loop {loop} waits for the database" in record.getMessage() for record in caplog.records)


@dataclass
class Slow:
    """An Evolution server that answers a question about a state when the test says so, with what it says."""

    url: str
    asked: "asyncio.Queue[asyncio.Future[str]]"

    async def question(self) -> "asyncio.Future[str]":
        """Return the next question once it is asked; its result is the state that is answered."""
        async with asyncio.timeout(15):
            return await self.asked.get()

    async def answer(self, *states: str) -> None:
        """Answer the next questions so."""
        for state in states:
            (await self.question()).set_result(state)


@asynccontextmanager
async def slow_gateway() -> AsyncIterator[Slow]:
    """Yield such a server."""
    asked: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

    async def state(request: Request) -> Response:
        question: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asked.put_nowait(question)
        name = request.path_params["name"]
        return JSONResponse({"instance": {"instanceName": name, "state": await question}})

    async def about(request: Request) -> Response:
        return JSONResponse({"version": "2.3.6"})

    routes = [Route("/", about), Route("/instance/connectionState/{name}", state)]
    with listening() as listener:
        async with serving(Starlette(routes=routes), listener):
            yield Slow(address(listener), asked)


@asynccontextmanager
async def asking(dsn: str) -> AsyncIterator[tuple[Zapwatch, Slow, str]]:
    """Yield a service, a slow gateway, and an open channel about which the gateway is being asked again."""
    timeout = timedelta(seconds=60)
    async with slow_gateway() as gateway, service(dsn, **UNHURRIED, probe_timeout=timeout) as z:
        channel = await z.channel("loja-01", api_url=gateway.url, api_key="k")
        await gateway.answer("open")
        await z.until(lambda: z.stands(channel), lambda stands: stands[0] == "open")
        assert (await z.client.post("/check", params={"channel_id": channel})).status_code == 202
        yield z, gateway, channel


async def until_settled(z: Zapwatch) -> None:
    """Wait until no probe is under way and what came of it is committed."""
    await eventually(lambda: not z.app.prober.in_flight)
    await z.app.writer.drain()


async def test_answer_that_a_webhook_overtook_is_dropped_and_asked_again_at_once(dsn: str) -> None:
    async with asking(dsn) as (z, gateway, channel):
        question = await gateway.question()
        await z.hear(channel, Evolution("loja-01").update("connecting"))
        assert (await z.stands(channel))[0] == "connecting"

        question.set_result("close")
        again = await gateway.question()

        # The next probe would be an hour later by itself.
        assert (await z.stands(channel))[0] == "connecting"
        again.set_result("open")
        await z.until(lambda: z.stands(channel), lambda stands: stands[0] == "open")
        assert "dropped" not in {event["trigger"] for event in await z.events(channel)}
        assert await z.incidents(channel) == []


async def test_channel_paused_under_its_probe_is_left_as_it_is(dsn: str) -> None:
    async with asking(dsn) as (z, gateway, channel):
        question = await gateway.question()
        before = await z.state(channel)
        assert (await z.client.post(f"/channels/{channel}/pause")).status_code == 200

        question.set_result("close")
        await until_settled(z)

        shown = await z.state(channel)
        assert shown["monitoring"]["paused"] is True
        assert shown["next_check_at"] is None
        assert shown["incident"] is None
        assert before["state"] == "open"
        assert (await z.client.post(f"/channels/{channel}/resume")).status_code == 200
        await gateway.answer("open")
        await z.until(lambda: z.stands(channel), lambda stands: stands[0] == "open")


async def test_channel_deleted_under_its_probe_stays_gone_and_others_are_asked(
    dsn: str, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(dsn) as (z, gateway, channel):
        question = await gateway.question()
        assert (await z.client.delete(f"/channels/{channel}")).status_code == 204

        question.set_result("close")
        await until_settled(z)
        other = await z.channel("loja-02", api_url=gateway.url, api_key="k")
        await gateway.answer("open")

        await z.until(lambda: z.stands(other), lambda stands: stands[0] == "open")
        assert (await z.client.get(f"/channels/{channel}")).status_code == 404
        row = await connection.fetchrow(
            "select s.probe_due_at, s.due_at, i.id as incident from zapwatch_states s"
            " left join whatsapp_connection_incidents i using (channel_id)"
            " where s.channel_id = $1::text::uuid",
            channel,
        )
        assert row is not None
        assert tuple(row) == (None, None, None)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_channel_deleted_for_good_under_its_probe_ends_nothing(
    dsn: str, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(dsn) as (z, gateway, channel):
        question = await gateway.question()
        await connection.execute("delete from notification_channels where id = $1::text::uuid", channel)

        question.set_result("close")
        await until_settled(z)
        other = await z.channel("loja-02", api_url=gateway.url, api_key="k")
        await gateway.answer("open")

        await z.until(lambda: z.stands(other), lambda stands: stands[0] == "open")
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_operators_check_is_not_kept_up_by_a_probe_under_way(dsn: str) -> None:
    async with asking(dsn) as (z, gateway, channel):
        first = await gateway.question()

        check = asyncio.create_task(z.client.post(f"/channels/{channel}/check"))
        await gateway.answer("open")

        assert (await check).json()["outcome"] == "open"
        first.set_result("open")
        await until_settled(z)
        assert (await z.stands(channel))[0] == "open"
