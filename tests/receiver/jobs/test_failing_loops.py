"""A loop that fails for long is named: by `/readyz`, by a metric, and by `zapwatch doctor`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from db.connection.types import Connection
from db.reconcile.failing_loops import KEPT, SEEN_WITHIN, forget_failing_loops
from receiver.alerts.notifiers.in_app import InApp
from receiver.doctor import examine
from receiver.jobs.loop import Backoff, LoopTiming
from receiver.settings import Settings
from tests.factories import Evolution
from tests.receiver.telemetry.test_metrics import value
from tests.support.service import KEY, SOON, Zapwatch, zapwatch

BACKOFF = Backoff(timedelta(seconds=0.01), timedelta(seconds=0.02))
QUICK = LoopTiming(failing_after=timedelta(seconds=0.2), reported_every=timedelta(0), backoff=BACKOFF)
REFUSE = (
    "update zapwatch_gateways set base_url = 'http://127.0.0.1:9', version_due_at = 'epoch'; "
    "alter table zapwatch_gateways add constraint refused check (version_due_at = 'epoch') not valid"
)
TAKE = "alter table zapwatch_gateways drop constraint refused"
NOTED = "insert into zapwatch_failing_loops values ($1, 'gateway_versions', 'elsewhere', $2, $2, 'KeyError')"


async def ready(z: Zapwatch) -> Any:
    """Return what `/readyz` says, which is never that the service isn't ready."""
    return await z.get("/readyz")


async def metric(z: Zapwatch, name: str, **labels: str) -> float | None:
    return value((await z.client.get("/metrics")).text, name, **labels)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[str]:
    assert settings.database_url is not None
    yield settings.database_url


async def named_by_doctor(dsn: str) -> list[str]:
    """Return what `zapwatch doctor` says of loops that fail."""
    examination = await examine(Settings(database_url=dsn, secret_keys=(KEY,)), opened)
    return [finding.what for finding in examination.findings if finding.code == "failing_loop"]


async def test_loop_that_fails_for_long_is_named_until_it_has_a_good_round(
    dsn: str, admin: Connection
) -> None:
    async with zapwatch(dsn, loops=QUICK) as z:
        await z.channel()
        assert await ready(z) == {"status": "ready", "failing_loops": []}
        assert await metric(z, "zapwatch_loop_failing", loop="gateway_versions") == 0
        assert await metric(z, "zapwatch_loop_failures_total", loop="gateway_versions", kind="refused") == 0

        await admin.execute(REFUSE)

        assert await z.until(lambda: ready(z), lambda it: it["failing_loops"]) == {
            "status": "degraded",
            "failing_loops": ["gateway_versions"],
        }
        (said,) = await z.until(lambda: named_by_doctor(dsn), bool)
        assert said.startswith("Background loops fail (1): gateway_versions on ")
        assert said.endswith("(CheckViolationError).")
        assert await metric(z, "zapwatch_loop_failing", loop="gateway_versions") == 1
        assert await metric(z, "zapwatch_loop_failing", loop="alerts") == 0
        assert await metric(z, "zapwatch_loop_failures_total", loop="gateway_versions", kind="refused")

        await admin.execute(TAKE)

        await z.until(lambda: ready(z), lambda it: it == {"status": "ready", "failing_loops": []})
        assert await z.until(lambda: named_by_doctor(dsn), lambda said: not said) == []
        assert await metric(z, "zapwatch_loop_failing", loop="gateway_versions") == 0


async def test_service_that_stops_leaves_no_word_of_loops_that_failed(dsn: str, admin: Connection) -> None:
    async with zapwatch(dsn, loops=QUICK) as z:
        await z.channel()
        await admin.execute(REFUSE)
        await z.until(lambda: named_by_doctor(dsn), bool)

    assert await named_by_doctor(dsn) == []


async def test_loop_of_another_process_is_named_while_that_says_so(dsn: str, connection: Connection) -> None:
    now = datetime.now(UTC)
    async with zapwatch(dsn) as z:
        await connection.execute(NOTED, uuid4(), now)
        assert await ready(z) == {"status": "degraded", "failing_loops": ["gateway_versions"]}
        assert await named_by_doctor(dsn)

        await connection.execute(
            "update zapwatch_failing_loops set seen_at = now() - $1::interval", SEEN_WITHIN
        )

        assert await ready(z) == {"status": "ready", "failing_loops": []}
        assert await named_by_doctor(dsn) == []


async def test_what_a_killed_process_left_is_forgotten(dsn: str, connection: Connection) -> None:
    now = datetime.now(UTC)
    await connection.execute(NOTED, uuid4(), now)

    await forget_failing_loops(connection, now)
    assert await connection.fetchval("select count(*) from zapwatch_failing_loops") == 1
    await forget_failing_loops(connection, now + KEPT + timedelta(seconds=1))
    assert await connection.fetchval("select count(*) from zapwatch_failing_loops") == 0


class Unready(InApp):
    """A notifier with a fault that nobody foresaw, which comes out while alerts are decided."""

    def __getattribute__(self, name: str) -> object:
        if name == "is_grouped":
            raise KeyError(name)
        return super().__getattribute__(name)


async def test_alerts_that_can_not_be_decided_are_counted_and_named(dsn: str, admin: Connection) -> None:
    async with zapwatch(dsn, loops=QUICK) as z:
        z.app.notifiers["unready"] = Unready(z.app.pool)
        await admin.execute("insert into zapwatch_destinations (kind, config) values ('unready', '')")
        channel = await z.channel(metadata={"heartbeat_threshold_minutes": SOON})
        await z.hear(channel, Evolution().update("open"), Evolution().update("close", 401))

        shown = await z.until(lambda: ready(z), lambda it: it["failing_loops"])

        assert shown == {"status": "degraded", "failing_loops": ["alerts"]}
        assert await metric(z, "zapwatch_loop_failures_total", loop="alerts", kind="unforeseen")
        assert await z.post(channel, Evolution().update("open")) == 204
