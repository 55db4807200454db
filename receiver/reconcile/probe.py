"""Probes one channel: asks its gateway and interprets the answer; writes nothing and counts nothing.

One answer is no verdict: `Answered` goes through the writer, and the machine counts.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.types import Pool
from db.ingest.entry import Entry, Source
from db.reconcile.claims import ProbeTarget, control_targets
from db.vault import Vault
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable, key_of
from receiver.providers import PROVIDERS, Provider
from receiver.providers.report import ProbeAnswer
from statemachine.model import Reason, Trigger
from statemachine.signals import Answered

JITTER: Final = 0.2
"""The largest share by which the gap to the next probe is stretched, so that probes don't coincide."""
CONTROLS: Final = 3
"""Other channels that are asked whether a gateway gives the same answer for all."""
FEWEST: Final = 3
"""With fewer channels on a gateway an answer that all get is no sign of a gateway-wide failure."""

OUTCOMES: Final = {
    Trigger.OPENED: "open",
    Trigger.CONNECTING: "connecting",
    Trigger.QR_ISSUED: "qr_pending",
    Trigger.DROPPED: "disconnected",
    Trigger.UNPAIRED: "disconnected",
    Trigger.SESSION_MISSING: "session_missing",
    Trigger.UNAUTHORIZED: "unauthorized",
    Trigger.UNREACHABLE: "unreachable",
    Trigger.NOT_LOADED: "not_loaded",
}
TIMED_OUT: Final = "timeout"
LOSSES: Final = frozenset({Trigger.SESSION_MISSING, Trigger.DROPPED})
"""Answers about a channel whose subscription has ended: a 404, or not connected."""

log = logging.getLogger(__name__)


def provider_of(name: str) -> Provider:
    """Return the provider of this name; raise `Unaskable` when only a later version knows it."""
    provider = PROVIDERS.get(name)
    if provider is None:
        raise Unaskable(f"this version doesn't know {name}")
    return provider


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One question and its answer. `http_status` is None when there was no answer."""

    target: ProbeTarget
    answer: ProbeAnswer
    outcome: str
    http_status: int | None
    began_at: datetime
    ended_at: datetime
    reached: bool = True
    """Whether anything came back, even a refusal: then this process is online."""

    @property
    def took(self) -> timedelta:
        return self.ended_at - self.began_at

    @property
    def entry(self) -> Entry:
        """The answer as an entry for the writer."""
        signal = Answered(
            received_at=self.ended_at,
            began_at=self.began_at,
            version=self.target.version,
            trigger=self.answer.trigger,
            reason=self.answer.reason,
            status=self.answer.status,
            certain=self.answer.certain,
            session_lost=self.answer.session_lost,
            jitter=random.uniform(1, 1 + JITTER),
        )
        return Entry(
            self.target.channel_id,
            Source.PROBE,
            "probe",
            self.ended_at,
            signal,
            gateway_id=self.target.gateway_id,
            details=self.answer.details,
        )


class _ProbeReply(NamedTuple):
    """The answer to one question, its HTTP status if there was one, and whether it timed out."""

    answer: ProbeAnswer
    http_status: int | None = None
    timed_out: bool = False
    reached: bool = True


class Prober:
    """Probes channels, with a control where one answer is ambiguous."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        client: Client,
        control_for: timedelta,
        on_probe: Callable[[ProbeResult], None] = lambda probed: None,
    ) -> None:
        """`control_for`: how long a control is valid; less than the gap between two counted answers."""
        self._pool = pool
        self._vault = vault
        self._client = client
        self._control_for = control_for.total_seconds()
        self._controls: dict[UUID, tuple[float, asyncio.Task[bool]]] = {}
        self._on_probe = on_probe
        self.in_flight = 0
        """Probes under way."""

    async def aclose(self) -> None:
        """Cancel the controls under way, and with them the probes that wait for one."""
        under_way = [control for _, control in self._controls.values()]
        for control in under_way:
            control.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def probe(self, target: ProbeTarget) -> ProbeResult:
        """Probe one channel and return the result; raises `Unaskable`."""
        self.in_flight += 1
        try:
            return await self._probe(target)
        finally:
            self.in_flight -= 1

    async def _probe(self, target: ProbeTarget) -> ProbeResult:
        began_at = datetime.now(UTC)
        reply = await self._ask(target)
        ended_at = datetime.now(UTC)
        answer = reply.answer
        if answer.ambiguous and await self._is_gateway_wide(target):
            answer = replace(answer, trigger=Trigger.UNREACHABLE, reason=Reason.UNREACHABLE)
        if answer.trigger in LOSSES and target.expires_at is not None and target.expires_at <= ended_at:
            answer = replace(answer, trigger=Trigger.SESSION_MISSING, reason=Reason.EXPIRED)
        outcome = TIMED_OUT if reply.timed_out else OUTCOMES[answer.trigger]
        probed = ProbeResult(target, answer, outcome, reply.http_status, began_at, ended_at, reply.reached)
        self._on_probe(probed)
        return probed

    async def _ask(self, target: ProbeTarget) -> _ProbeReply:
        provider = provider_of(target.provider)
        if target.instance is None:
            raise Unaskable("it names no instance")
        question = provider.ask(target.instance, key_of(self._vault, target))
        try:
            reply = await self._client.get(target.base_url + question.path, question.headers)
        except Unanswered as reason:
            silence = ProbeAnswer(Trigger.UNREACHABLE, Reason.UNREACHABLE)
            return _ProbeReply(silence, timed_out=reason.timed_out, reached=reason.reached)
        try:
            return _ProbeReply(provider.read(reply.status, reply.body), reply.status)
        except Exception:
            # An unforeseen answer.
            log.exception("an answer of %s could not be read", target.provider)
            return _ProbeReply(
                ProbeAnswer(Trigger.UNREACHABLE, Reason.UNREACHABLE, reply.status), reply.status
            )

    async def _is_gateway_wide(self, target: ProbeTarget) -> bool:
        """Return whether other channels of this gateway get the same answer; all probes share one control."""
        gateway_id = target.gateway_id
        if gateway_id is None:
            return False
        now = asyncio.get_running_loop().time()
        until, control = self._controls.get(gateway_id, (0.0, None))
        if control is None or until <= now:
            control = asyncio.create_task(self._control(target, gateway_id))
            self._controls = {
                id: kept for id, kept in self._controls.items() if kept[0] > now or not kept[1].done()
            }
            self._controls[gateway_id] = now + self._control_for, control
        return await asyncio.shield(control)

    async def _control(self, target: ProbeTarget, gateway_id: UUID) -> bool:
        async with self._pool.acquire() as connection:
            others = await control_targets(connection, gateway_id, target.channel_id, CONTROLS)
        if len(others) + 1 < FEWEST:
            return False
        asked = 0
        try:
            # Together they may take as long as one of them may.
            async with asyncio.timeout(self._client.seconds):
                for other in others:
                    with contextlib.suppress(Unaskable):
                        reply = await self._ask(other)
                        if _is_another_answer(reply):
                            return False
                        asked += 1
        except TimeoutError:
            return True
        return asked + 1 >= FEWEST


def _is_another_answer(reply: _ProbeReply) -> bool:
    """Return whether the gateway answered properly, but differently; silence and 5xx prove nothing."""
    return reply.http_status is not None and reply.http_status < 500 and not reply.answer.ambiguous
