"""Counts what one process's probes show of keys that gateways refuse, in memory; does no I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.reconcile.gateway_health import GatewayObservation
from receiver.reconcile.probe import ProbeResult
from statemachine.gateway import FailureStreak, failed, join
from statemachine.model import Trigger

KEPT_FOR: Final = timedelta(seconds=30)
"""How long an accepted key is reported repeatedly: refusals of other processes may be reported later."""
UNKNOWN: Final = frozenset({Trigger.UNREACHABLE, Trigger.NOT_LOADED})
"""Answers that say nothing of the key."""
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class RefusedKeys:
    """The keys that gateways accepted and refused since they were last taken."""

    def __init__(self) -> None:
        self._accepted: dict[UUID, datetime] = {}
        self._refusing: dict[UUID, FailureStreak] = {}

    def note(self, probed: ProbeResult) -> None:
        """Count a probe; fits `Prober(on_probe=...)`."""
        gateway_id, trigger = probed.target.gateway_id, probed.answer.trigger
        if gateway_id is None or trigger in UNKNOWN:
            return
        if trigger is not Trigger.UNAUTHORIZED:
            self._accepted[gateway_id] = probed.ended_at
            self._refusing.pop(gateway_id, None)
        elif probed.began_at > self._accepted.get(gateway_id, LONG_AGO):
            self._refuse(gateway_id, failed(probed.target.channel_id, probed.began_at))

    def take(
        self, now: datetime, observations: dict[UUID, GatewayObservation]
    ) -> dict[UUID, GatewayObservation]:
        """Return these observations with the keys that were accepted and refused, and forget the latter."""
        self._accepted = {id: at for id, at in self._accepted.items() if now - at < KEPT_FOR}
        refusing, self._refusing = self._refusing, {}
        for id in {*self._accepted, *refusing}:
            observation = observations.get(id, GatewayObservation())
            observations[id] = observation._replace(
                accepted_at=self._accepted.get(id), refusing=refusing.get(id)
            )
        return observations

    def give_back(self, gateway_id: UUID, observation: GatewayObservation) -> None:
        """Take back refusals that could not be written."""
        if observation.refusing is not None and gateway_id not in self._accepted:
            self._refuse(gateway_id, observation.refusing)

    def _refuse(self, gateway_id: UUID, refusing: FailureStreak) -> None:
        joined = join(self._refusing.get(gateway_id), refusing)
        assert joined is not None
        self._refusing[gateway_id] = joined
