"""While our own line is cut no channel changes and no gateway is at fault, by whichever way it is probed."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from db.connection.pool import connect_writer, open_pool
from db.connection.types import Connection
from db.ingest.writer import Writer
from db.reconcile.claims import ProbeTarget
from receiver.outbound.client import open_client
from receiver.providers.report import ProbeAnswer
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateways.connectivity import Connectivity
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import Prober, ProbeResult
from receiver.sandbox import Fault
from receiver.settings import Settings
from statemachine.model import Reason, Rules, Trigger
from tests.db.entries import VAULT, register
from tests.receiver.reconcile.test_gateway_health import BRISK, fill, goes
from tests.support.service import KEY, time
from tests.support.story import Story, story

CUT: dict[str, Any] = {**BRISK, "probe_timeout": timedelta(seconds=0.5), "breaker_max": timedelta(seconds=1)}


async def hosts_of(told: Story, count: int, channels: int = 2) -> tuple[list[Any], dict[str, Any]]:
    """Return so many hosts, and the instances on them by channel, all open."""
    hosts = [await told.fleet.evolution() for _ in range(count)]
    instances: dict[str, Any] = {}
    for host in hosts:
        instances |= await fill(told, host, channels)
    return hosts, instances


def asked(instances: dict[str, Any]) -> list[int]:
    """Return how often each channel was asked about."""
    return [len(instance.probed) for instance in instances.values()]


async def asked_more(told: Story, instances: dict[str, Any], times: int) -> None:
    """Wait until each channel was asked about so many times more."""
    before = asked(instances)

    async def more() -> list[int]:
        return [now - then for now, then in zip(asked(instances), before, strict=True)]

    await told.z.until(more, lambda counts: min(counts) >= times, 60)


async def failures(connection: Connection) -> int:
    """Return how many unanswered probes channels and gateways have counted."""
    return int(
        await connection.fetchval(
            "select (select count(*) from zapwatch_gateways where failing_since is not null)"
            " + (select count(*) from zapwatch_events where source = 'probe' and trigger = 'unreachable')"
        )
    )


async def test_a_cut_of_our_own_line_changes_and_counts_nothing(dsn: str, connection: Connection) -> None:
    async with story(dsn, **CUT) as told:
        hosts, instances = await hosts_of(told, 3)

        for host in hosts:
            host.fault = Fault.HANG
        await told.z.until(
            lambda: told.z.state(next(iter(instances))), lambda it: it["evidence_age_seconds"] >= 8, 60
        )
        during = [await told.z.state(id) for id in instances]
        counted = await failures(connection)
        for host in hosts:
            host.fault = None
        await asked_more(told, instances, 3)

        assert {it["state"] for it in during} == {"open"}
        assert {it["gateway"]["state"] for it in during} == {"up"}
        assert counted == await failures(connection) == 0
        for id in instances:
            assert (await told.z.state(id))["evidence_age_seconds"] < 8
            assert [it for it in await told.z.events(id) if it["trigger"] == "unreachable"] == []
        assert await told.all_incidents() == []
        assert await connection.fetchval("select count(*) from zapwatch_alerts") == 0


async def test_held_probes_leave_their_concurrency_slots_to_others(dsn: str, connection: Connection) -> None:
    async with story(dsn, **CUT) as told:
        hosts, _ = await hosts_of(told, 2, 1)
        busy = await told.fleet.evolution()
        instances = await fill(told, busy, 30)
        hosts.append(busy)

        for host in hosts:
            host.fault = Fault.HANG
        await told.z.until(
            lambda: told.z.state(next(iter(instances))), lambda it: it["evidence_age_seconds"] >= 4, 60
        )
        await asked_more(told, instances, 2)

        assert {(await told.z.state(id))["state"] for id in instances} == {"open"}


async def test_one_dead_host_of_three_quiet_ones_is_known_at_once(dsn: str) -> None:
    settings = {**CUT, "stale_after": timedelta(hours=1), "retry_after": timedelta(seconds=0.2)}
    async with story(dsn, **settings) as told:
        hosts, instances = await hosts_of(told, 3, 1)
        dead = next(iter(instances))

        hosts[0].fault = Fault.HANG
        began = datetime.now(UTC)
        await told.z.client.post(f"/channels/{dead}/check")
        await told.z.until(lambda: told.z.state(dead), lambda it: it["state"] == "error", 15)

        assert datetime.now(UTC) - began < timedelta(seconds=10)
        assert [(await told.z.state(id))["state"] for id in list(instances)[1:]] == ["open", "open"]


async def test_with_two_gateways_nothing_is_held(dsn: str) -> None:
    async with story(dsn, **CUT) as told:
        hosts, instances = await hosts_of(told, 2, 1)

        for host in hosts:
            host.fault = Fault.HANG
        for id in instances:
            await told.z.until(lambda id=id: told.z.state(id), lambda it: it["state"] == "error", 20)  # type: ignore[misc]


async def test_what_no_answer_explains_within_the_time_is_submitted_and_dated_from_its_beginning(
    dsn: str, connection: Connection
) -> None:
    settings = {**CUT, "offline_for": timedelta(seconds=5)}
    async with story(dsn, **settings) as told:
        hosts, instances = await hosts_of(told, 3)

        cut_at = datetime.now(UTC)
        for host in hosts:
            host.fault = Fault.HANG
        for host in hosts:
            await goes(told, host, "down")
        shown = [
            await told.z.until(lambda id=id: told.z.state(id), lambda it: it["state"] == "error", 20)  # type: ignore[misc]
            for id in instances
        ]
        incidents = (await told.z.get("/incidents", subject="gateway"))["items"]

        assert [it["details"].get("perhaps_offline") for it in incidents] == [True] * 3
        assert min(time(it["opened_at"]) for it in incidents) >= cut_at + settings["offline_for"]
        assert max(time(it["since"]) for it in shown) < cut_at + settings["offline_for"]


async def test_a_check_by_hand_says_what_was_seen_and_counts_nothing(dsn: str) -> None:
    settings = {**CUT, "stale_after": timedelta(hours=1)}
    async with story(dsn, **settings) as told:
        hosts, instances = await hosts_of(told, 3, 1)
        id = next(iter(instances))

        for host in hosts:
            host.fault = Fault.HANG
        answers = [(await told.z.client.post(f"/channels/{id}/check")).json() for _ in range(5)]

        assert {(it["outcome"], it["state"]) for it in answers} == {("timeout", "open")}
        assert [it for it in await told.z.events(id) if it["trigger"] == "unreachable"] == []


async def test_a_service_that_stops_while_it_holds_probes_leaves_no_claim(
    dsn: str, connection: Connection
) -> None:
    async with story(dsn, **CUT) as told:
        hosts, instances = await hosts_of(told, 3)
        for host in hosts:
            host.fault = Fault.HANG
        await asked_more(told, instances, 2)

    latest = await connection.fetchval(
        "select max(probe_claimed_until) - clock_timestamp() from zapwatch_states"
        " where probe_claimed_until is distinct from probe_due_at"
    )
    assert latest is None or latest <= timedelta(0)


@asynccontextmanager
async def guarding(dsn: str, url: str) -> AsyncIterator[tuple[OfflineGuard, Connectivity]]:
    """Yield a guard without a service around it, for which that address proves that we are online."""
    settings = Settings(database_url=dsn, secret_keys=(KEY,), connectivity_url=url)
    answers = GatewayAnswers(timedelta(minutes=2))
    writer = Writer(partial(connect_writer, dsn), Rules())
    async with (
        await open_pool(dsn, "zapwatch test") as pool,
        open_client(timedelta(seconds=0.2)) as client,
        aclosing(Prober(pool, VAULT, client, timedelta(seconds=1), answers.note)) as prober,
        aclosing(OfflineGuard(pool, writer, prober, client, answers, settings)) as guard,
    ):
        task = asyncio.create_task(writer.run())
        try:
            yield guard, answers.line
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_of_held_probes_only_those_are_submitted_that_were_not_our_own_silence(
    dsn: str, connection: Connection
) -> None:
    channel_id = await register(connection)
    gateway_id = await connection.fetchval("select id from zapwatch_gateways")
    now = datetime.now(UTC)

    def later(seconds: float) -> datetime:
        return now + timedelta(seconds=seconds)

    def unanswered(began: float) -> ProbeResult:
        target = ProbeTarget(channel_id, 0, now, gateway_id, "evolution_api", "http://evo", "loja", None, b"")
        answer = ProbeAnswer(Trigger.UNREACHABLE, Reason.UNREACHABLE)
        return ProbeResult(target, answer, "timeout", None, later(began), later(began + 1), reached=False)

    # The system accepts its connections, and nobody answers them.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        async with guarding(dsn, url) as (guard, line):
            first = await guard.submit(unanswered(-20))
            line.prove(later(5), asked_at=later(4))
            second = await guard.submit(unanswered(6))
            line.prove(later(8), asked_at=later(1))
            await guard.settle(later(9))

    counting = "select (memory -> 'suspicion' ->> 'count')::int from zapwatch_states"
    counted = await connection.fetchval(counting)
    assert (first, second, counted) == (False, False, 1)
