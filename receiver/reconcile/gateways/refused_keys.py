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
    """The keys that gateways accepted and refused since they were last taken.

    A gateway's own key serves channels without one; what becomes of a channel's own says nothing of it.
    """

    def __init__(self) -> None:
        self._accepted: dict[UUID, datetime] = {}
        self._accepted_own: dict[UUID, datetime] = {}
        self._refused: dict[UUID, FailureStreak] = {}
        self._refused_own: dict[UUID, FailureStreak] = {}

    def note(self, probed: ProbeResult) -> None:
        """Count a probe; fits `Prober(on_probe=...)`."""
        gateway_id, trigger = probed.target.gateway_id, probed.answer.trigger
        if gateway_id is None or trigger in UNKNOWN:
            return
        is_own = probed.target.channel_key is not None
        if trigger is Trigger.UNAUTHORIZED:
            self._note_refused(gateway_id, probed, is_own)
        elif is_own:
            self._accepted_own[gateway_id] = probed.ended_at
            self._refused_own.pop(gateway_id, None)
        else:
            self._accepted[gateway_id] = probed.ended_at
            self._refused.pop(gateway_id, None)
            self._refused_own.pop(gateway_id, None)

    def take(
        self, now: datetime, observations: dict[UUID, GatewayObservation]
    ) -> dict[UUID, GatewayObservation]:
        """Return these observations with the keys that were accepted and refused, and forget the latter."""
        self._accepted, self._accepted_own = _kept(self._accepted, now), _kept(self._accepted_own, now)
        refused, self._refused = self._refused, {}
        refused_own, self._refused_own = self._refused_own, {}
        for id in {*self._accepted, *self._accepted_own, *refused, *refused_own}:
            observation = observations.get(id, GatewayObservation())
            observations[id] = observation._replace(
                accepted_at=self._accepted.get(id),
                accepted_own_at=self._accepted_own.get(id),
                refusing=join(refused.get(id), refused_own.get(id)),
            )
        return observations

    def give_back(self, gateway_id: UUID, observation: GatewayObservation) -> None:
        """Take back refusals that could not be written."""
        if observation.refusing is not None and gateway_id not in self._accepted:
            # Whether an accepted key ends them is judged again by the evaluation.
            _join_into(self._refused, gateway_id, observation.refusing)

    def _note_refused(self, gateway_id: UUID, probed: ProbeResult, is_own: bool) -> None:
        accepted_at = self._accepted.get(gateway_id, LONG_AGO)
        if is_own:
            accepted_at = max(accepted_at, self._accepted_own.get(gateway_id, LONG_AGO))
        if probed.began_at > accepted_at:
            refused = self._refused_own if is_own else self._refused
            _join_into(refused, gateway_id, failed(probed.target.channel_id, probed.began_at))


def _kept(accepted: dict[UUID, datetime], now: datetime) -> dict[UUID, datetime]:
    return {id: at for id, at in accepted.items() if now - at < KEPT_FOR}


def _join_into(streaks: dict[UUID, FailureStreak], gateway_id: UUID, new: FailureStreak) -> None:
    joined = join(streaks.get(gateway_id), new)
    assert joined is not None
    streaks[gateway_id] = joined
