"""What the machine makes of a loss that an order to the gateway may still heal; it gives none itself."""

from dataclasses import replace
from datetime import timedelta

import pytest

from statemachine.model import Channel, Monitoring, Reason, RecoverableCondition, Rules, State, Trigger
from statemachine.policy.recovery import recoverable_condition_of
from statemachine.signals import (
    Answered,
    Change,
    Configured,
    Deadline,
    IncidentOpened,
    Open,
    RecoveryEnded,
    Signal,
)
from statemachine.step import step
from tests.statemachine.test_step import OPENED, after, answer, at, told

CONNECTING = told(10, Trigger.CONNECTING, Reason.CONNECTING)
INCOMPLETE = told(10, Trigger.CONNECTING, Reason.INCOMPLETE_SESSION)
DROPPED = told(10, Trigger.DROPPED, Reason.CONNECTION_CLOSED)
UNPAIRED = told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)
SILENT = [answer(n, Trigger.UNREACHABLE, Reason.UNREACHABLE) for n in (10, 20, 30)]


def lost(seconds: float) -> Answered:
    """A probe that finds a session lost."""
    return answer(seconds, Trigger.DROPPED, Reason.DISCONNECTED, session_lost=True)


def ended(seconds: float, failed: bool = True) -> RecoveryEnded:
    """Recovery's last word for half an hour."""
    return RecoveryEnded(at(seconds), at(seconds + 1800), failed)


def test_a_lost_session_is_dropped_and_not_terminal_while_recovery_may_run() -> None:
    channel, effects = after(OPENED, lost(100))

    assert (channel.state, channel.status.reason) == (State.DROPPED, Reason.DISCONNECTED)
    assert not channel.status.terminal
    assert (channel.recovery_due_at, channel.lost_until, channel.due_at) == (at(101), at(161), at(161))
    assert effects == []


def test_a_lost_session_is_unpaired_when_recovery_has_failed() -> None:
    channel, _ = after(OPENED, lost(100), ended(115))

    assert (channel.state, channel.status.reason) == (State.UNPAIRED, Reason.DISCONNECTED)
    assert channel.terminal_at == at(115)
    assert channel.due_at == at(130)
    assert (channel.lost_until, channel.recovery_due_at) == (None, None)
    assert channel.since == channel.first_unhealthy_at == at(100)


def test_a_lost_session_is_unpaired_after_a_minute_whatever_recovery_does() -> None:
    before, _ = after(OPENED, lost(100), Deadline(at(160)))
    channel, effects = after(OPENED, lost(100), ended(150, failed=False), Deadline(at(161)))
    later, opened = step(channel, Deadline(at(176)))

    assert before.state is State.DROPPED
    assert (channel.state, effects, channel.due_at) == (State.UNPAIRED, [], at(176))
    assert [type(effect) for effect in opened] == [Open]
    assert later.incident is not None
    assert later.incident.started_at == at(100)


def test_a_second_look_at_a_lost_session_does_not_lengthen_its_minute() -> None:
    channel, _ = after(OPENED, lost(100), lost(130), lost(155), Deadline(at(161)))

    assert channel.state is State.UNPAIRED


def test_a_session_that_comes_back_within_its_minute_is_no_incident() -> None:
    channel, effects = after(OPENED, lost(100), answer(110, Trigger.OPENED), ended(112, failed=False))
    lost_again, _ = after(OPENED, lost(100), answer(110, Trigger.OPENED), lost(200))

    assert (channel.state, channel.lost_until, channel.recovery_due_at) == (State.OPEN, None, None)
    assert effects == []
    assert lost_again.lost_until == at(261)


def test_no_incident_opens_while_recovery_runs_however_short_the_grace() -> None:
    rules = Rules(threshold=timedelta(0))

    channel, effects = after(OPENED, lost(100), Deadline(at(102)), rules=rules)
    _, opened = after(OPENED, lost(100), Deadline(at(161)), rules=rules)

    assert (effects, channel.due_at) == ([], at(161))
    assert [type(effect) for effect in opened] == [Open]


def test_an_open_incident_says_when_its_session_is_given_up() -> None:
    channel, effects = after(OPENED, IncidentOpened(at(5), "error"), lost(100), Deadline(at(161)))

    assert [type(effect) for effect in effects] == [Change, Change]
    assert channel.incident is not None
    assert channel.incident.last_state == "disconnected/unpaired"


@pytest.mark.parametrize(
    "rules",
    [
        Rules(recovery=False),
        Rules(recoverable=(RecoverableCondition.STUCK, RecoverableCondition.DROPPED)),
        Rules(monitoring=Monitoring.PAUSED),
    ],
    ids=["switched off", "no order for it", "paused"],
)
def test_a_lost_session_that_nothing_may_bring_back_is_unpaired_at_once(rules: Rules) -> None:
    at_once, _ = after(OPENED, lost(100), rules=rules)
    in_between, _ = after(OPENED, lost(100), Configured(at(110), rules))

    assert at_once.state is in_between.state is State.UNPAIRED
    assert at_once.recovery_due_at is in_between.recovery_due_at is None


def test_a_session_that_was_never_open_is_lost_at_once() -> None:
    channel, _ = after(lost(100))

    assert channel.state is State.UNPAIRED


def test_a_webhook_that_was_under_way_still_counts_when_the_minute_is_over() -> None:
    late = told(105, Trigger.OPENED)._replace(received_at=at(165))

    channel, _ = after(OPENED, lost(100), Deadline(at(161)), late)

    assert channel.state is State.OPEN


def test_removing_a_channel_ends_its_wait_for_recovery() -> None:
    channel, _ = after(OPENED, lost(100), Configured(at(110), Rules(monitoring=Monitoring.REMOVED)))

    assert (channel.lost_until, channel.recovery_due_at, channel.due_at) == (None, None, None)


@pytest.mark.parametrize(
    ("signals", "condition", "due"),
    [
        ([OPENED, CONNECTING], RecoverableCondition.STUCK, 70),
        ([OPENED, INCOMPLETE], RecoverableCondition.INCOMPLETE, 10),
        ([OPENED, DROPPED], RecoverableCondition.DROPPED, 20),
        ([OPENED, lost(9)], RecoverableCondition.LOST, 10),
        ([OPENED], None, None),
        ([OPENED, UNPAIRED], None, None),
        ([OPENED, told(10, Trigger.QR_ISSUED, Reason.QR_SHOWN)], None, None),
        ([OPENED, *SILENT], None, None),
        ([CONNECTING], None, None),
        ([DROPPED], None, None),
    ],
    ids=["stuck", "incomplete", "dropped", "lost", "open", "unpaired", "qr", "error", "new", "new, closed"],
)
def test_an_order_may_help_from_then_on(
    signals: list[Signal], condition: RecoverableCondition | None, due: float | None
) -> None:
    channel, _ = after(*signals)
    without, _ = after(*signals, rules=Rules(recoverable=()))

    assert recoverable_condition_of(channel) is condition
    assert channel.recovery_due_at == (None if due is None else at(due))
    assert without.recovery_due_at is None


def test_repeated_connecting_does_not_put_recovery_off_and_a_new_one_does() -> None:
    again = told(60, Trigger.CONNECTING, Reason.CONNECTING)
    back = told(30, Trigger.OPENED)

    flood, _ = after(OPENED, CONNECTING, again)
    anew, _ = after(OPENED, CONNECTING, back, again)

    assert (flood.recovery_due_at, anew.recovery_due_at) == (at(70), at(120))


def test_recovery_that_ended_is_due_again_when_it_says_and_a_new_ailment_at_its_own_time() -> None:
    tired, _ = after(OPENED, CONNECTING, ended(80))
    flood, _ = after(OPENED, CONNECTING, ended(80), told(90, Trigger.CONNECTING, Reason.CONNECTING))
    closed, _ = after(OPENED, CONNECTING, ended(80), told(100, Trigger.DROPPED, Reason.CONNECTION_LOST))
    healthy, _ = after(OPENED, ended(80))

    assert tired.recovery_due_at == flood.recovery_due_at == at(1880)
    assert closed.recovery_due_at == at(110)
    assert healthy.recovery_due_at is None


def test_failing_to_free_a_channel_that_is_not_lost_leaves_it_where_it_is() -> None:
    before: tuple[Channel, object] = after(OPENED, CONNECTING)

    channel, effects = step(before[0], ended(80))

    assert (channel.state, channel.version, effects) == (State.CONNECTING, before[0].version, ())


def test_a_loss_that_is_found_while_connecting_takes_two_answers() -> None:
    first, _ = after(OPENED, CONNECTING, lost(20))
    second, _ = after(OPENED, CONNECTING, lost(20), replace(lost(31)))

    assert (first.state, second.state) == (State.CONNECTING, State.DROPPED)
    assert second.lost_until == at(92)
