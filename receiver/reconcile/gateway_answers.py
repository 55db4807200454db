"""Counts what one process's probes show of whole gateways, in memory, until it is taken; does no I/O.

A gateway's silence is reported only after something else has answered. Until then this process may be
offline, and no gateway is at fault: at most for `offline_for`, so that real outages are still reported.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from db.reconcile.gateway_health import GatewayObservation
from receiver.reconcile.gateways.connectivity import LONG_AGO, Connectivity
from receiver.reconcile.probe import ProbeResult
from statemachine.gateway import FailureStreak, failed, join

NO_ANSWER: Final = frozenset({502, 503, 504, *range(520, 531)})
"""Codes of proxies for a gateway that does not answer; 503 is also a gateway's own when unavailable."""
UNAVAILABLE: Final = 503
KEPT_FOR: Final = timedelta(seconds=30)
"""How long an answer is reported repeatedly: failures of other processes may be reported later."""


def is_silence(probed: ProbeResult) -> bool:
    """Return whether a probe went unanswered, or was answered by a proxy that has no answer."""
    return probed.http_status is None or probed.http_status in NO_ANSWER


class GatewayAnswers:
    """The answers and failures of one process since they were last taken."""

    def __init__(self, offline_for: timedelta) -> None:
        """`offline_for`: how long silence from everywhere counts against no gateway."""
        self.line: Final = Connectivity(offline_for)
        self._answered: dict[UUID, datetime] = {}
        self._failing: dict[UUID, FailureStreak] = {}

    def note(self, probed: ProbeResult) -> None:
        """Count a probe; fits `Prober(on_probe=...)`."""
        gateway_id, status = probed.target.gateway_id, probed.http_status
        if probed.reached:
            self.prove(probed.ended_at, probed.began_at)
        if gateway_id is None:
            return
        if not is_silence(probed):
            self._note_answer(gateway_id, probed.ended_at)
        elif self.line.is_ours(probed.began_at) and not probed.reached:
            return
        elif probed.began_at > self._answered.get(gateway_id, LONG_AGO):
            # Otherwise another probe was answered meanwhile: the failure is the channel's own.
            one = failed(probed.target.channel_id, probed.began_at, status == UNAVAILABLE)
            self._fail(gateway_id, one)

    def answered(self, gateway_id: UUID, at: datetime) -> None:
        """Note that a gateway answered, whatever it was asked; fits `BulkProber(on_answer=...)`."""
        self.prove(at)
        self._note_answer(gateway_id, at)

    def prove(self, at: datetime, asked_at: datetime | None = None) -> None:
        """Note that something came back to a question of `asked_at` (None: just before): we are online."""
        if self.line.prove(at, asked_at):
            self._failing.clear()

    @property
    def failing(self) -> list[UUID]:
        """The gateways with failures not yet taken."""
        return list(self._failing)

    def unproven(self) -> list[UUID]:
        """Return the gateways whose silence may be our own; observations of others may be taken."""
        return [id for id, failing in self._failing.items() if not self.line.is_proven(failing.last_at)]

    def take(self, now: datetime, unproven: Collection[UUID]) -> dict[UUID, GatewayObservation]:
        """Return and forget the observation of each gateway; failures of the unproven stay.

        After `offline_for` these are returned as well, marked as possibly our own.
        """
        offline = self.line.is_over(now)
        self._answered = {id: at for id, at in self._answered.items() if now - at < KEPT_FOR}
        observations = {id: GatewayObservation(answered_at=at) for id, at in self._answered.items()}
        for id in [id for id in self._failing if offline or id not in unproven]:
            observation = observations.get(id, GatewayObservation())
            observations[id] = observation._replace(
                failing=self._failing.pop(id), offline=offline and id in unproven
            )
        return observations

    def give_back(self, gateway_id: UUID, observation: GatewayObservation) -> None:
        """Take back failures that could not be written."""
        if observation.failing is not None and gateway_id not in self._answered:
            self._fail(gateway_id, observation.failing)

    def _note_answer(self, gateway_id: UUID, at: datetime) -> None:
        self._answered[gateway_id] = at
        self._failing.pop(gateway_id, None)

    def _fail(self, gateway_id: UUID, failing: FailureStreak) -> None:
        joined = join(self._failing.get(gateway_id), failing)
        assert joined is not None
        self._failing[gateway_id] = joined
