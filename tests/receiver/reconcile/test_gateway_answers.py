"""What one process's probes amount to: whose silence may be told on, and when it may be our own."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from db.reconcile.claims import ProbeTarget
from receiver.providers.report import ProbeAnswer
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateways.connectivity import PROOF_WITHIN
from receiver.reconcile.probe import ProbeResult
from statemachine.model import Trigger

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
OFFLINE_FOR = timedelta(minutes=2)
ONE, OTHER = uuid4(), uuid4()


def at(seconds: float) -> datetime:
    """So many seconds after T0."""
    return T0 + timedelta(seconds=seconds)


def probed(
    gateway: UUID, began: float, ended: float, status: int | None, reached: bool = True
) -> ProbeResult:
    """A probe of some channel of a gateway; a status None: no answer."""
    target = ProbeTarget(uuid4(), 0, at(began), gateway, "evolution_api", "http://evo", "loja", None, b"")
    return ProbeResult(target, ProbeAnswer(Trigger.UNREACHABLE), "", status, at(began), at(ended), reached)


def silent(gateway: UUID, began: float) -> ProbeResult:
    """A probe that ran into its time-out."""
    return probed(gateway, began, began + 8, None, reached=False)


def tallied(*probes: ProbeResult) -> GatewayAnswers:
    answers = GatewayAnswers(OFFLINE_FOR)
    for probe in probes:
        answers.note(probe)
    return answers


@pytest.mark.parametrize("status", [502, 503, 504, 520, 522, 530])
def test_what_a_proxy_says_for_a_gateway_is_no_answer(status: int) -> None:
    noted = tallied(probed(ONE, 1, 2, status)).take(at(3), [])

    failing = noted[ONE].failing
    assert noted[ONE].answered_at is None
    assert failing is not None
    assert failing.unavailable == (status == 503)


@pytest.mark.parametrize("status", [200, 401, 404, 500, 501])
def test_every_other_answer_is_one(status: int) -> None:
    noted = tallied(silent(ONE, 1), probed(ONE, 10, 11, status)).take(at(12), [])

    assert (noted[ONE].answered_at, noted[ONE].failing) == (at(11), None)


def test_who_is_silent_while_others_are_answered_is_no_sign_of_the_gateways_trouble() -> None:
    noted = tallied(probed(ONE, 4, 5, 200), silent(ONE, 1)).take(at(12), [])

    assert noted[ONE].failing is None


def test_an_answer_is_told_on_for_a_while_and_a_failure_once() -> None:
    answers = tallied(probed(ONE, 1, 2, 200), silent(OTHER, 1))

    first, second, late = (answers.take(at(seconds), []) for seconds in (10, 20, 40))

    assert first.keys() == {ONE, OTHER}
    assert second.keys() == {ONE}
    assert late == {}


@pytest.mark.parametrize(
    "proof", [probed(OTHER, 9, 9.5, 200), probed(OTHER, 9, 9.5, None), probed(OTHER, 9, 9.5, 503)]
)
def test_anything_that_comes_back_proves_that_we_are_online(proof: ProbeResult) -> None:
    answers = tallied(silent(ONE, 1))
    alone = answers.unproven()

    answers.note(proof)

    assert alone == [ONE]
    assert answers.unproven() == []


def test_without_proof_silence_is_told_on_only_when_patience_is_over() -> None:
    answers = tallied(silent(ONE, 1))
    answers.line.note_silence(at(9))

    early = answers.take(at(9) + OFFLINE_FOR - timedelta(seconds=1), answers.unproven())
    late = answers.take(at(9) + OFFLINE_FOR, answers.unproven())

    assert early == {}
    assert late[ONE].failing is not None
    assert late[ONE].offline


def test_silence_of_before_a_late_proof_was_ours() -> None:
    answers = tallied(silent(ONE, 1))
    answers.line.note_silence(at(9))

    answers.prove(at(20))
    answers.note(silent(ONE, 19))

    assert answers.failing == []
    assert answers.line.is_ours(at(19))
    assert not answers.line.is_over(at(9) + OFFLINE_FOR)


def test_silence_after_a_late_proof_is_the_gateways() -> None:
    answers = tallied(silent(ONE, 1))
    answers.line.note_silence(at(9))

    answers.prove(at(20))
    answers.note(silent(OTHER, 21))

    assert answers.failing == [OTHER]


@pytest.mark.parametrize("asked", [None, at(9), at(9) + PROOF_WITHIN])
def test_silence_of_just_before_a_proof_was_the_gateways(asked: datetime | None) -> None:
    answers = tallied(silent(ONE, 1))
    answers.line.note_silence(at(9))

    answers.prove(at(11) if asked is None else at(16), asked)

    assert answers.take(at(17), answers.unproven())[ONE].failing is not None
