"""What one process's probes tell of whole gateways, counted in memory until somebody looks; does no I/O.

A gateway's silence is told on only once something else has answered meanwhile. Until then it may be us who
are offline, and nobody is blamed: at most for a time, for a watcher that says nothing is worth nothing.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.reconcile.gateway_health import GatewayObservation
from receiver.reconcile.probe import ProbeResult
from statemachine.gateway import FailureStreak, failed, join

NO_ANSWER: Final = frozenset({502, 503, 504, *range(520, 531)})
"""A proxy's words for a gateway that does not answer; 503 is also a gateway's own, when it can't work."""
UNAVAILABLE: Final = 503
KEPT_FOR: Final = timedelta(seconds=30)
"""How long an answer is told on again and again: failures of other processes may come to light later."""
PROOF_WITHIN: Final = timedelta(seconds=3)
"""A sign that we are online that comes later than this says nothing of the silence before it."""
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class GatewayAnswers:
    """The answers and failures of one process since they were last taken."""

    def __init__(self, offline_for: timedelta) -> None:
        """`offline_for`: how long silence from everywhere is blamed on nobody."""
        self._offline_for: Final = offline_for
        self._answered: dict[UUID, datetime] = {}
        self._failing: dict[UUID, FailureStreak] = {}
        self._proved_at = LONG_AGO
        self._silent_since: datetime | None = None
        self._in_doubt = False

    def note(self, probed: ProbeResult) -> None:
        """Count a probe; fits `Prober(on_probe=...)`."""
        gateway_id, status = probed.target.gateway_id, probed.http_status
        if probed.reached:
            self.prove(probed.ended_at)
        if gateway_id is None:
            return
        if status is not None and status not in NO_ANSWER:
            self.answered(gateway_id, probed.ended_at)
        elif probed.began_at > self._answered.get(gateway_id, LONG_AGO):
            # Otherwise somebody else was answered while this one was not: it is the channel's own trouble.
            one = failed(probed.target.channel_id, probed.began_at, status == UNAVAILABLE)
            self._fail(gateway_id, one)

    def answered(self, gateway_id: UUID, at: datetime) -> None:
        """Note that a gateway answered, whatever it was asked; fits `BulkProber(on_answer=...)`."""
        self.prove(at)
        self._answered[gateway_id] = at
        self._failing.pop(gateway_id, None)

    def prove(self, at: datetime) -> None:
        """Note that something came back: we are online, and if we doubted it, silence until now was ours."""
        self._proved_at = max(self._proved_at, at)
        if self._in_doubt:
            self._failing.clear()
        self._silent_since, self._in_doubt = None, False

    @property
    def failing(self) -> list[UUID]:
        """The gateways of which failures are untold."""
        return list(self._failing)

    def unproven(self, now: datetime) -> list[UUID]:
        """Return the gateways whose silence may be our own; what is said of others may be taken."""
        unproven = [id for id, failing in self._failing.items() if failing.last_at >= self._proved_at]
        if unproven and self._silent_since is None:
            self._silent_since = now
        return unproven

    def doubt(self, now: datetime) -> tuple[datetime, datetime] | None:
        """Return since and until when nobody is to blame; None: there is proof, or no more patience."""
        if self._silent_since is None:
            return None
        until = self._silent_since + self._offline_for
        self._in_doubt = self._silent_since + PROOF_WITHIN <= now < until
        return (self._silent_since, until) if now < until else None

    def take(self, now: datetime, unproven: list[UUID]) -> dict[UUID, GatewayObservation]:
        """Return what is to be told of each gateway, and forget it; failures of the unproven stay untold.

        Once patience is over they are told, too, and that we may be offline with them.
        """
        waited = timedelta(0) if self._silent_since is None else now - self._silent_since
        offline = waited >= max(self._offline_for, PROOF_WITHIN)
        self._answered = {id: at for id, at in self._answered.items() if now - at < KEPT_FOR}
        told = {id: GatewayObservation(answered_at=at) for id, at in self._answered.items()}
        for id in [id for id in self._failing if offline or id not in unproven]:
            noted = told.get(id, GatewayObservation())
            told[id] = noted._replace(failing=self._failing.pop(id), offline=offline and id in unproven)
        return told

    def put_back(self, gateway_id: UUID, noted: GatewayObservation) -> None:
        """Take back failures that nobody could be told of."""
        if noted.failing is not None and gateway_id not in self._answered:
            self._fail(gateway_id, noted.failing)

    def _fail(self, gateway_id: UUID, failing: FailureStreak) -> None:
        joined = join(self._failing.get(gateway_id), failing)
        assert joined is not None
        self._failing[gateway_id] = joined
