"""Whatever befalls channels, and whoever asks which of two replicas: the budgets of orders hold."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from db.reconcile.recoveries import Budget
from receiver.sandbox import Fault, open_fleet
from tests.support.service import Zapwatch, served
from tests.support.soak import sized
from tests.support.story import Story, compressed

SPEED = 100.0
"""How fast time runs: a channel rests 18 s, and a minute of a gateway's is 0.6 s."""
BUDGET = Budget().faster(SPEED)
CHANNELS = 12
"""On each of the two gateways: more than may be ordered in a minute."""
PATIENCE = 60
PATIENCE_WITH_ORDERS = 5
"""Seconds until a channel is open, and until something is done for it: a busy machine may need them."""
FATES = ("lost", "lost for good", "stuck", "flapping", "healed")
ANSWERS = (None, Fault.ERROR_200, Fault.SERVER_ERROR, Fault.RESET)


@dataclass
class Rig:
    """Two services on one database, and the two gateways that both watch."""

    replicas: list[Zapwatch]
    fleet: Any
    instances: dict[str, Any]
    asked: list[int]
    """The statuses that operators got."""

    async def befall(self, number: int, fate: str) -> None:
        """Let something happen to a channel; what its gateway can't do is something else."""
        instance = list(self.instances.values())[number]
        is_wapi = hasattr(instance, "restarts_needed")
        match fate:
            case "healed":
                instance.come_back()
                instance.connect()
            case "stuck" | "flapping" if is_wapi:
                instance.lose_phone()
            case "lost" | "lost for good" if is_wapi:
                instance.restarts_needed = 2 if fate == "lost" else None
                instance.disconnect()
            case "lost":
                instance.lose("close")
            case "lost for good":
                instance.drop(None)
            case "stuck":
                instance.stick()
            case _:
                instance.flap(2, gap=0.1)

    async def relapse(self, number: int, fate: str) -> None:
        """Have a channel lose what it has, be brought back or given up, be healed, and lose it again."""
        channel, z = list(self.instances)[number], self.replicas[0]
        for _ in range(2):
            await self.befall(number, "healed")
            await z.until(partial(z.stands, channel), lambda stands: stands[0] == "open", PATIENCE)
            ordered = len(self.instances[channel].ordered)
            await self.befall(number, fate)
            with suppress(TimeoutError):
                await z.until(partial(self._came, channel, ordered), lambda came: came, PATIENCE_WITH_ORDERS)

    async def _came(self, channel: str, ordered: int) -> bool:
        """Whether an order came since, or none will, because the channel is given up."""
        stands = await self.replicas[0].stands(channel)
        return len(self.instances[channel].ordered) > ordered or bool(stands[2])

    async def ask(self, number: int, replica: int) -> None:
        """Ask one of the replicas for a recovery by hand."""
        channel = list(self.instances)[number]
        answer = await self.replicas[replica].client.post(f"/channels/{channel}/restart", timeout=60)
        self.asked.append(answer.status_code)


@pytest.fixture
async def rig(dsn: str) -> AsyncIterator[Rig]:
    """Two services, and channels on two gateways, all open."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(open_fleet(speed=SPEED))
        chosen = {
            **compressed(SPEED),
            "stale_after": timedelta(seconds=5),
            "retry_after": timedelta(seconds=0.3),
        }
        replicas = [await stack.enter_async_context(served(dsn, **chosen)) for _ in range(2)]
        told = Story(replicas[0], fleet)
        evolution, wapi = await fleet.evolution(), await fleet.wapi()
        instances: list[tuple[Any, Any]] = [
            (evolution, evolution.add(f"loja-{n:02}")) for n in range(CHANNELS)
        ]
        instances += [(wapi, wapi.add()) for _ in range(CHANNELS)]
        channels = {await told.watch(host, instance, None): instance for host, instance in instances}
        for channel in channels:
            await told.becomes(channel, "open")
        yield Rig(replicas, fleet, channels, [])


async def broken(rig: Rig) -> list[str]:
    """Return every breach of a budget in all that was ordered so far; the gateways' own count included."""
    rows = await rig.replicas[0].app.pool.fetch(
        "select channel_id::text, gateway_id, tried_at from zapwatch_recoveries order by began_at"
    )
    breaches: list[str] = []
    by_gateway: dict[Any, list[datetime]] = defaultdict(list)
    by_channel: dict[str, list[list[datetime]]] = defaultdict(list)
    for channel, gateway, tried_at in rows:
        by_gateway[gateway] += tried_at
        by_channel[channel].append(tried_at)
        if len(tried_at) > BUDGET.tries:
            breaches.append(f"{len(tried_at)} tries in one episode")
        if any(b - a < BUDGET.gap for a, b in pairwise(tried_at)):
            breaches.append("two tries that are too close")
    for channel, episodes in by_channel.items():
        spent = [tried_at for tried_at in episodes if tried_at]
        if any(b[0] - a[-1] < BUDGET.rest for a, b in pairwise(spent)):
            breaches.append("two episodes that are too close")
        if len(rig.instances[channel].ordered) > sum(len(tried_at) for tried_at in episodes):
            breaches.append("an order that nobody counted")
    for times in by_gateway.values():
        times.sort()
        beyond = zip(times, times[BUDGET.per_gateway :], strict=False)
        if any(later - earlier < BUDGET.window for earlier, later in beyond):
            breaches.append("too many orders to one gateway")
    return breaches


steps = st.lists(
    st.one_of(
        st.tuples(st.just("befall"), st.integers(0, 2 * CHANNELS - 1), st.sampled_from(FATES)),
        st.tuples(st.just("storm"), st.sampled_from(FATES), st.sampled_from(ANSWERS)),
        st.tuples(st.just("answer"), st.integers(0, 2 * CHANNELS - 1), st.sampled_from(ANSWERS)),
        st.tuples(st.just("relapse"), st.integers(0, 2 * CHANNELS - 1), st.sampled_from(FATES[:3])),
        st.tuples(st.just("ask"), st.integers(0, 2 * CHANNELS - 1), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.floats(1, 90), st.none()),
    ),
    min_size=4,
    max_size=8,
)
BUSY: Final[list[tuple[str, Any, Any]]] = [
    ("relapse", CHANNELS, "lost"),
    ("relapse", 0, "stuck"),
    ("storm", "lost for good", None),
    ("ask", 1, 0),
    ("storm", "stuck", Fault.ERROR_200),
    ("wait", 200, None),
    ("ask", 0, 1),
]
"""A sequence in which something is ordered for certain: in a storm only its first channel."""


@pytest.mark.soak
@pytest.mark.timeout(400)
@settings(max_examples=sized(2, 12), suppress_health_check=list(HealthCheck))
@given(script=steps)
@example(script=BUSY)
async def test_no_sequence_breaks_a_budget(rig: Rig, script: list[tuple[str, Any, Any]]) -> None:
    asking: list[asyncio.Task[None]] = []
    for step, what, how in script:
        match step:
            case "befall":
                await rig.befall(what, how)
            case "answer":
                list(rig.instances.values())[what].order_fault = how
            case "storm":
                for number, instance in enumerate(rig.instances.values()):
                    instance.order_fault = how
                    await rig.befall(number, what)
            case "relapse":
                await rig.relapse(what, how)
            case "ask":
                asking += [asyncio.create_task(rig.ask(what, replica)) for replica in (how, 1 - how)]
            case _:
                await rig.fleet.pause(what)
    await asyncio.gather(*asking)

    assert await broken(rig) == []
    assert script is not BUSY or sum(len(instance.ordered) for instance in rig.instances.values()) > 3


async def test_two_replicas_spend_a_gateways_budget_and_no_more(dsn: str) -> None:
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(open_fleet(speed=SPEED))
        # Without a window no loss is a mass loss, during which nothing would be ordered.
        unhurried = {**compressed(1), "probe_timeout": timedelta(seconds=8), "verdict_within": timedelta(0)}
        replicas = [await stack.enter_async_context(served(dsn, **unhurried)) for _ in range(2)]
        told, host = Story(replicas[0], fleet), await fleet.wapi()
        instances = [host.add() for _ in range(14)]
        channels = await told.watch_all(host, instances)

        for instance in instances:
            instance.disconnect()
        pool = replicas[0].app.pool
        tries = "select coalesce(sum(cardinality(tried_at)), 0)::int from zapwatch_recoveries"
        await replicas[0].until(lambda: pool.fetchval(tries), lambda spent: spent >= 10, 40)
        asked = [z.client.post(f"/channels/{channel}/restart") for channel in channels for z in replicas]
        answers = await asyncio.gather(*asked)

        assert {answer.status_code for answer in answers} <= {409, 429}
        assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 429} > set()
        assert await pool.fetchval(tries) == 10
        assert sum(len(instance.ordered) for instance in instances) == 10
