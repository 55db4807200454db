"""Recovers channels by orders to their gateways: probes, gives an order, probes again.

The state machine and the provider decide whether an order may help; `db/reconcile/recoveries.py` counts the
budgets. A channel is recovered when a probe says open, whatever the gateway answered to the order.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.entry import RECOVERY, Entry, Source
from db.ingest.queue import COMMIT_TIMEOUT, NotCommitted
from db.ingest.writer import Writer
from db.reconcile.claims import Claim, ProbeTarget
from db.reconcile.recoveries import (
    Budget,
    Outcome,
    RecoveryContext,
    RequestedBy,
    claim_for_operator,
    claim_recoveries,
    end_recovery,
    read_context,
    release_recoveries,
    spent_recoveries,
    take_try,
)
from db.vault import Vault
from receiver.jobs.leased_tasks import LeasedTasks, to_the_end
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable, key_of
from receiver.providers import RECOVERY_SUPPORT
from receiver.providers.report import Condition, NotApplicable, RecoveryAction, RecoveryPlan
from receiver.reconcile.probe import ProbeResult
from statemachine.model import Trigger
from statemachine.signals import RecoveryEnded

ROUNDS_A_GAP: Final = 5
"""Rounds in the gap between two orders, one a second: the longest delay of a lost session."""
SHORTEST: Final = timedelta(seconds=0.05)
"""Shortest pause between rounds, in tests with compressed time."""
AT_ONCE: Final = 200
"""Episodes that one process works on at the same time."""
PROBE_TIMES: Final = (0.2, 0.3, 0.5)
"""When to probe after an order, in shares of the gap: an Evolution opens within half a second."""
SOON: Final = 2
"""Delay of the next episode of a channel that could not be recovered now, in gaps between orders."""
LATER: Final = 60
"""The same for a channel that no order helps in its status."""

log = logging.getLogger(__name__)


class RecoveryDeclined(Exception):
    """An order that an operator requests would not help; the message is a sentence for people."""


class RecoveryAttempt(NamedTuple):
    """The order given to a channel, the problem with it, and the last probe."""

    action: RecoveryAction | None = None
    """None: no order was given."""
    number: int = 0
    """Which order of its episode it was."""
    problem: str | None = None
    probed: ProbeResult | None = None

    @property
    def recovered(self) -> bool:
        """Whether the last probe says open."""
        return self.probed is not None and self.probed.answer.trigger is Trigger.OPENED


class Recovery:
    """Makes the recoveries of one process; `loop` runs in one task, `by_hand` may be called from any."""

    def __init__(
        self,
        pool: Pool,
        writer: Writer,
        vault: Vault,
        client: Client,
        check: Callable[[ProbeTarget], Awaitable[ProbeResult]],
        budget: Budget,
        stuck_after: timedelta,
        on_ended: Callable[[str, Outcome], None] = lambda provider, outcome: None,
    ) -> None:
        """`check` probes a channel and submits the answer."""
        self._pool = pool
        self._writer = writer
        self._vault = vault
        self._client = client
        self._check = check
        self._budget = budget
        self._stuck_after = stuck_after
        self._on_ended = on_ended
        self._tasks = LeasedTasks(pool, writer, release_recoveries)
        # Each round: a probe, an order and the probes after it, each with its commit, and the gap.
        per_call = timedelta(seconds=2 * client.seconds) + COMMIT_TIMEOUT
        self._lease: Final = self._rounds * ((2 + len(PROBE_TIMES)) * per_call + budget.gap)

    @property
    def _rounds(self) -> int:
        """Rounds of one episode: some give no order."""
        return 2 * self._budget.tries

    async def recover_due(self) -> Sequence[asyncio.Task[None]]:
        """Begin due recoveries within their budgets; return their tasks, to be awaited or not."""
        now = datetime.now(UTC)
        until = now + self._lease
        free = max(AT_ONCE - len(self._tasks), 0)
        async with self._pool.acquire() as connection:
            spent = await spent_recoveries(connection, now, AT_ONCE, self._budget)
            claims = await claim_recoveries(connection, now, until, free, self._budget)
        begun = [self._tasks.begin(claim, self._recover(claim)) for claim in claims]
        refused = [
            _entry(one.channel_id, Source.DEADLINE, RecoveryEnded(now, one.again_at, failed=True))
            for one in spent
        ]
        await self._writer.submit_each(refused)
        return begun

    def loop(self) -> Loop:
        """Return the loop that recovers channels."""
        pause = max(self._budget.gap / ROUNDS_A_GAP, SHORTEST)
        return Loop("recovery", self._round, pause, self._tasks.give_back)

    async def _round(self) -> bool:
        try:
            await to_the_end(self.recover_due())
        except NotCommitted as error:
            log.warning("recoveries are delayed: %s", error)
        return False

    async def by_hand(self, channel_id: UUID, tenant_id: UUID | None) -> RecoveryAttempt | None:
        """Give one order that an operator requests, and return the result; None: no such channel.

        Raises `RecoveryDeclined` when it would not help, `OverBudget`, `Unaskable` and `NotCommitted`.
        """
        async with self._pool.acquire() as connection:
            context = await read_context(connection, channel_id, tenant_id)
        if context is None:
            return None
        plan = self._plan(context)
        if isinstance(plan, NotApplicable):
            raise RecoveryDeclined(plan.why)
        until = datetime.now(UTC) + self._lease
        async with self._pool.acquire() as connection:
            claim = await claim_for_operator(connection, channel_id, until, self._budget)
        attempt = RecoveryAttempt()
        try:
            attempt = await self._try(claim, context, plan)
        finally:
            outcome = _outcome_by_hand(attempt)
            await self._end(claim, Source.OPERATOR, context, attempt, outcome)
        return attempt

    async def _recover(self, claim: Claim) -> None:
        try:
            await self._episode(claim)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning("the recovery of channel %s is delayed: %r", claim.channel_id, error)
        except Exception:
            # An unforeseen answer of one gateway must not end the recoveries of the others.
            log.exception("the recovery of channel %s failed", claim.channel_id)

    async def _episode(self, claim: Claim) -> None:
        """Try as often as the budget allows, until a probe says open or no order would help."""
        last, outcome, put_off = RecoveryAttempt(), Outcome.FAILED, SOON
        for _ in range(self._rounds):
            context = await self._read(claim.channel_id)
            if context is None:
                break
            if context.tries >= self._budget.tries:
                last = last._replace(number=context.tries)
                break
            plan = self._due_plan(context)
            if isinstance(plan, NotApplicable):
                last, outcome = await self._with_probe(context, last), Outcome.OVERTAKEN
                put_off = SOON if _in_trouble(context) else LATER
                break
            try:
                attempt = await self._try(claim, context, plan)
            except Unaskable as reason:
                log.info("channel %s is given no order: %s", claim.channel_id, reason)
                outcome, put_off = Outcome.OVERTAKEN, LATER
                break
            # Orders of another replica, which began the episode, count as well.
            last = attempt if attempt.action else last._replace(number=context.tries, probed=attempt.probed)
            if attempt.recovered or last.number == 0:
                break
            if last.number == context.tries:
                await asyncio.sleep(self._budget.gap.total_seconds())
        if last.recovered:
            outcome = Outcome.RECOVERED
        await self._end(claim, Source.DEADLINE, context, last, outcome, put_off)

    async def _read(self, channel_id: UUID) -> RecoveryContext | None:
        async with self._pool.acquire() as connection:
            return await read_context(connection, channel_id)

    def _due_plan(self, context: RecoveryContext) -> RecoveryPlan | NotApplicable:
        """Return the plan for a recovery by the clock, or why there is none."""
        if not context.wanted or context.asked_by is not RequestedBy.CLOCK:
            return NotApplicable("No order is wanted any more.")
        if context.gateway_settles:
            return NotApplicable("Its gateway has just come back.")
        return self._plan(context)

    def _plan(self, context: RecoveryContext) -> RecoveryPlan | NotApplicable:
        """Return the recovery plan, or why there is none."""
        provider = RECOVERY_SUPPORT.get(context.target.provider)
        if provider is None:
            return NotApplicable("Its gateway can't be told to restart it.")
        if context.paused:
            return NotApplicable("It is paused or inactive.")
        if not context.target.configured:
            return NotApplicable("It has no address or no key.")
        if context.gateway_down:
            return NotApplicable("Its whole gateway is in trouble.")
        if context.gateway_refuses:
            return NotApplicable("Its gateway refuses the key.")
        lasted = timedelta(0) if context.since is None else datetime.now(UTC) - context.since
        return provider.plan_recovery(
            Condition(context.state, context.reason, lasted, self._stuck_after, context.gateway_version)
        )

    async def _with_probe(self, context: RecoveryContext, last: RecoveryAttempt) -> RecoveryAttempt:
        """Return the last attempt with a new probe, if an order was given in this episode."""
        if context.tries == 0 or context.paused or not context.target.configured:
            return last
        try:
            return last._replace(number=context.tries, probed=await self._check(context.target))
        except Unaskable:
            return last

    async def _try(self, claim: Claim, context: RecoveryContext, plan: RecoveryPlan) -> RecoveryAttempt:
        """Confirm the condition by a probe if required, give the order once, and probe the result."""
        probed = None
        if plan.if_seen is not None:
            probed = await self._check(context.target)
            if probed.answer.trigger is not plan.if_seen:
                return RecoveryAttempt(problem=f"A probe says {probed.outcome}.", probed=probed)
        async with self._pool.acquire() as connection:
            number = await take_try(connection, claim, context.state, plan.action, self._budget)
        if number is None:
            return RecoveryAttempt(problem="It may be given no order just now.", probed=probed)
        problem = await self._order(context, plan.action)
        for share in PROBE_TIMES:
            await asyncio.sleep(share * self._budget.gap.total_seconds())
            now = await self._read(claim.channel_id) or context
            probed = await self._check(now.target)
            if probed.answer.trigger is Trigger.OPENED:
                break
        return RecoveryAttempt(plan.action, number, problem, probed)

    async def _order(self, context: RecoveryContext, action: RecoveryAction) -> str | None:
        """Give an order, and return the problem; None: the gateway accepted it."""
        provider, target = RECOVERY_SUPPORT[context.target.provider], context.target
        assert target.instance is not None
        key = key_of(self._vault, target)
        order = provider.order(action, target.instance, key, context.gateway_version)
        try:
            reply = await self._client.send(
                order.method, target.base_url + order.path, order.headers, order.body
            )
        except Unanswered as reason:
            return f"no answer ({reason})"
        return provider.read_order(reply.status, reply.body)

    async def _end(
        self,
        claim: Claim,
        source: Source,
        context: RecoveryContext | None,
        last: RecoveryAttempt,
        outcome: Outcome,
        put_off: int = SOON,
    ) -> None:
        """Record the end of an episode, in the channel's history first."""
        now, was_tried = datetime.now(UTC), last.number > 0
        again_at = now + (self._budget.rest if was_tried else put_off * self._budget.gap)
        # After an operator's one try the clock still has its own.
        is_over = source is Source.DEADLINE or last.number >= self._budget.tries
        failed = outcome is Outcome.FAILED and was_tried and is_over
        details = {
            "outcome": outcome.value,
            "action": last.action,
            "tries": last.number,
            "problem": last.problem,
        }
        signal = RecoveryEnded(now, again_at, failed, ordered=was_tried)
        await self._writer.submit([_entry(claim.channel_id, source, signal, details if was_tried else {})])
        async with self._pool.acquire() as connection:
            await end_recovery(connection, claim, outcome)
        if was_tried and context is not None:
            self._on_ended(context.target.provider, outcome)


def _in_trouble(context: RecoveryContext) -> bool:
    """Whether orders wait for its gateway alone."""
    return context.gateway_down or context.gateway_refuses or context.gateway_settles


def _outcome_by_hand(attempt: RecoveryAttempt) -> Outcome:
    """Return the outcome; a channel that is open before anything was ordered came back by itself."""
    if not attempt.recovered:
        return Outcome.FAILED
    return Outcome.OVERTAKEN if attempt.action is None else Outcome.RECOVERED


def _entry(
    channel_id: UUID,
    source: Source,
    signal: RecoveryEnded,
    details: Mapping[str, object] = MappingProxyType({}),
) -> Entry:
    return Entry(channel_id, source, RECOVERY, signal.received_at, signal, details=details)
