"""Metrics: what is noted is what Prometheus reads; what needs the database never holds a scrape up."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from db.connection.pool import open_pool
from db.connection.types import Connection, Pool
from db.ingest.apply import Applied
from db.registry.channels import ChannelSpec, register_channel
from db.vault import Vault
from receiver.sandbox import Fault
from receiver.telemetry.metrics import COUNTED_FOR, LAG_EVERY, Metrics
from tests.factories import Evolution
from tests.support.eventually import eventually, let_tasks_run
from tests.support.service import SOON, zapwatch
from tests.support.story import story

VAULT = Vault([bytes(32)])
LABELS = {"code", "kind", "le", "loop", "outcome", "provider", "state"}


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with await open_pool(dsn) as opened:
        yield opened


def value(text: bytes | str, name: str, **labels: str) -> float | None:
    """Return a sample's value, or None when there is no such sample."""
    exposed = text if isinstance(text, str) else text.decode()
    for family in text_string_to_metric_families(exposed):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


async def registered(
    connection: Connection,
    instance: str = "loja-01",
    url: str = "http://evolution.example",
    probe_due: float | None = None,
    deadline_due: float | None = None,
) -> None:
    """Register a channel whose probe and deadline are due since so many seconds."""
    new = ChannelSpec(provider="evolution_api", instance=instance, api_url=url, api_key="k")
    channel_id, _ = await register_channel(connection, VAULT, new)
    await connection.execute(
        "update zapwatch_states set probe_due_at = now() - make_interval(secs => $2),"
        " due_at = now() - make_interval(secs => $3) where channel_id = $1",
        channel_id,
        probe_due,
        deadline_due,
    )


async def test_noted_work_is_exposed_even_without_a_database() -> None:
    metrics = Metrics()

    metrics.committed(Applied({}, ["error"], 2), 3, 0.004)
    metrics.webhook_answers.labels("wapi", "204").inc()
    async with asyncpg.create_pool("postgresql://nobody@/nothing?host=/does/not/exist", min_size=0) as away:
        text = (await metrics.expose(away)).decode()

    assert 'zapwatch_batch_entries_bucket{le="2.0"} 0.0' in text
    assert 'zapwatch_batch_entries_bucket{le="5.0"} 1.0' in text
    assert 'zapwatch_commit_seconds_bucket{le="0.005"} 1.0' in text
    assert "zapwatch_entries_applied_total 3.0" in text
    assert 'zapwatch_incidents_opened_total{kind="error"} 1.0' in text
    assert "zapwatch_incidents_resolved_total 2.0" in text
    assert 'zapwatch_webhook_answers_total{code="204",provider="wapi"} 1.0' in text
    for counted in ("channels", "provider_channels", "incidents_open", "oldest_due_seconds"):
        assert f"zapwatch_{counted}{{" not in text


def test_two_services_in_one_process_do_not_share_numbers() -> None:
    one, two = Metrics(), Metrics()

    one.entries_applied.inc()

    assert two.registry.get_sample_value("zapwatch_entries_applied_total") == 0


async def test_channels_and_open_incidents_are_counted_by_provider(dsn: str) -> None:
    soon = {"heartbeat_threshold_minutes": SOON}
    async with zapwatch(dsn) as z:
        for n in range(2):
            await z.hear(await z.channel(f"loja-{n}"), Evolution(f"loja-{n}").update("open"))
        lost = await z.channel("loja-2", metadata=soon)
        await z.hear(lost, Evolution("loja-2").update("open"), Evolution("loja-2").closed())
        await z.channel("ABC", "wapi")
        gone = await z.channel("DEF", "wapi")
        assert (await z.client.delete(f"/channels/{gone}")).status_code == 204
        await z.incident(lost)

        text = (await z.client.get("/metrics")).text

    by_provider = "zapwatch_provider_channels"
    assert value(text, "zapwatch_channels", state="open") == 2
    assert value(text, "zapwatch_channels", state="unknown") == 1
    assert value(text, by_provider, provider="evolution_api", state="open") == 2
    assert value(text, by_provider, provider="evolution_api", state="disconnected") == 1
    assert value(text, by_provider, provider="wapi", state="unknown") == 1
    assert value(text, by_provider, provider="wapi", state="open") == 0
    assert value(text, "zapwatch_incidents_open", provider="evolution_api") == 1
    assert value(text, "zapwatch_incidents_open", provider="wapi") == 0
    assert value(text, "zapwatch_gateways", state="up") == 0
    assert value(text, "zapwatch_gateway_incidents_open") == 0


async def test_oldest_due_is_that_of_all_gateways(pool: Pool, connection: Connection) -> None:
    near, far = "http://near.example", "http://far.example"
    await registered(connection, "loja-01", near, probe_due=30, deadline_due=-20)
    await registered(connection, "loja-02", near, probe_due=-60, deadline_due=200)
    await registered(connection, "loja-01", far, probe_due=50, deadline_due=100)
    await registered(connection, "loja-02", far, probe_due=500)
    await connection.execute("update zapwatch_states set probe_claimed_until = now() + interval '1 hour'")

    text = await Metrics().expose(pool)

    assert value(text, "zapwatch_oldest_due_seconds", kind="probe") == pytest.approx(500, abs=15)
    assert value(text, "zapwatch_oldest_due_seconds", kind="deadline") == pytest.approx(200, abs=15)


async def test_oldest_due_is_nought_while_nothing_is_due(pool: Pool, connection: Connection) -> None:
    await registered(connection, probe_due=-60, deadline_due=-60)

    text = await Metrics().expose(pool)

    assert value(text, "zapwatch_oldest_due_seconds", kind="probe") == 0
    assert value(text, "zapwatch_oldest_due_seconds", kind="deadline") == 0


async def test_figures_are_counted_again_after_their_time(pool: Pool, connection: Connection) -> None:
    now = 0.0
    metrics = Metrics(clock=lambda: now)
    await metrics.expose(pool)
    await registered(connection)

    kept = await metrics.expose(pool)
    now = COUNTED_FOR.total_seconds()
    counted = await metrics.expose(pool)

    assert value(kept, "zapwatch_channels", state="unknown") == 0
    assert value(counted, "zapwatch_channels", state="unknown") == 1


async def test_scrape_does_not_wait_for_a_slow_count(pool: Pool, connection: Connection) -> None:
    now = 0.0
    metrics = Metrics(clock=lambda: now)
    await metrics.expose(pool)
    await registered(connection)
    now = COUNTED_FOR.total_seconds()

    async with connection.transaction():
        # Nobody can count until this transaction ends, and it ends after the scrapes.
        await connection.execute("lock table zapwatch_states in access exclusive mode")
        scrapes = await asyncio.gather(metrics.expose(pool), metrics.expose(pool))

    assert [value(text, "zapwatch_channels", state="unknown") for text in scrapes] == [0, 0]
    await eventually(
        lambda: metrics.expose(pool), lambda text: value(text, "zapwatch_channels", state="unknown") == 1
    )


async def test_figures_are_left_out_while_the_database_is_away(pool: Pool, connection: Connection) -> None:
    now = 0.0
    metrics = Metrics(clock=lambda: now)
    there = await metrics.expose(pool)
    now = COUNTED_FOR.total_seconds()

    async with asyncpg.create_pool("postgresql://nobody@/nothing?host=/does/not/exist", min_size=0) as away:
        gone = await metrics.expose(away)

    for name, label in (("zapwatch_channels", "state"), ("zapwatch_incidents_open", "provider")):
        some = {"state": "open", "provider": "wapi"}[label]
        assert value(there, name, **{label: some}) == 0
        assert value(gone, name, **{label: some}) is None


async def test_blocked_event_loop_shows_as_lag() -> None:
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    measuring = asyncio.create_task(metrics.watch_event_loop())
    lag = "zapwatch_event_loop_lag_seconds"
    read = metrics.registry.get_sample_value

    await let_tasks_run()
    blocked_until = loop.time() + 2 * LAG_EVERY.total_seconds()
    while loop.time() < blocked_until:
        pass
    await measuring

    assert read(f"{lag}_bucket", {"le": "0.1"}) == 0
    assert read(f"{lag}_sum") == pytest.approx(LAG_EVERY.total_seconds(), abs=0.2)


async def test_a_running_service_measures_its_event_loop(dsn: str) -> None:
    async with zapwatch(dsn) as z:

        async def measured() -> float | None:
            return value((await z.client.get("/metrics")).text, "zapwatch_event_loop_lag_seconds_count")

        assert await z.until(measured, lambda count: count) is not None


async def test_probes_in_flight_are_counted_until_they_are_answered(dsn: str) -> None:
    timeout = timedelta(seconds=2)
    async with story(dsn, probe_timeout=timeout, stale_after=timedelta(hours=1)) as told:
        host = await told.fleet.evolution()
        instances = [host.add(f"loja-{n}") for n in range(3)]

        async def in_flight() -> float | None:
            text = (await told.z.client.get("/metrics")).text
            return value(text, "zapwatch_probes_in_flight")

        host.fault = Fault.HANG
        for instance in instances:
            await told.watch(host, instance, state=None)

        await told.z.until(in_flight, lambda count: count == 3)
        host.fault = None
        await told.z.until(in_flight, lambda count: count == 0)


async def test_probes_are_timed_by_provider_and_outcome_and_nobody_is_named(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance, name="Loja Centro")
        instance.fault = Fault.UNAUTHORIZED
        await told.becomes(channel, "error", "unauthorized")

        text = (await told.z.client.get("/metrics")).text

    seconds = "zapwatch_probe_seconds_count"
    assert value(text, seconds, provider="evolution_api", outcome="open")
    assert value(text, seconds, provider="evolution_api", outcome="unauthorized")
    families = list(text_string_to_metric_families(text))
    assert {label for family in families for sample in family.samples for label in sample.labels} <= LABELS
    for private in ("loja-01", "Loja Centro", channel, host.url, host.key, instance.key):
        assert private not in text
