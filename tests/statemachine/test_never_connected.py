"""What is never told of a channel that was never connected, and what proves that one was."""

import pytest

from statemachine.model import Channel, Reason, RecoverableCondition, Rules, State, Trigger
from statemachine.signals import Deadline, Effect, Heard, Open, Resolve, Signal
from statemachine.step import step
from tests.statemachine.test_step import OPENED, after, answer, at, close, missing, silence, told

WITH_RECOVERY = Rules(recovery=True, recoverable=tuple(RecoverableCondition))


def unauthorized(seconds: float) -> Signal:
    return answer(seconds, Trigger.UNAUTHORIZED, Reason.UNAUTHORIZED, status=401)


def logout(seconds: float, **more: object) -> Heard:
    return told(seconds, Trigger.UNPAIRED, Reason.LOGGED_OUT, status=401, **more)


def by_api(seconds: float, reason: Reason = Reason.LOGGED_OUT_BY_API, **more: object) -> Heard:
    return told(seconds, Trigger.UNPAIRED, reason, **more)


def waited(channel: Channel, seconds: float) -> tuple[Channel, list[Effect]]:
    """The channel after its deadlines until then, and what followed."""
    effects: list[Effect] = []
    while channel.due_at is not None and channel.due_at <= at(seconds):
        now = channel.due_at
        channel, more = step(channel, Deadline(now))
        effects += more
        assert channel.due_at != now or channel.incident
    return channel, effects


@pytest.mark.parametrize(
    "signals",
    [
        (told(0, Trigger.DROPPED, Reason.CONNECTION_LOST),),
        (told(0, Trigger.CONNECTING, Reason.CONNECTING),),
        (told(0, Trigger.QR_ISSUED, Reason.QR_SHOWN),),
        (told(0, Trigger.UNPAIRED, Reason.QR_LIMIT),),
        (told(0, Trigger.UNPAIRED, Reason.INSTANCE_REMOVED),),
        (told(0, Trigger.UNPAIRED, Reason.LOGGED_OUT_BY_API, status=401),),
        (close(0), close(20)),
        (silence(0), silence(10), silence(20)),
    ],
)
def test_channel_without_a_sign_of_a_connection_has_no_incident_and_gets_no_order(
    signals: tuple[Signal, ...],
) -> None:
    channel, _ = after(*signals, rules=WITH_RECOVERY)

    channel, effects = waited(channel, 9000)

    assert (effects, channel.incident, channel.has_been_open) == ([], None, False)
    assert channel.state not in (State.UNKNOWN, State.OPEN)
    assert channel.recovery_due_at is None


@pytest.mark.parametrize(
    "sign",
    [
        OPENED,
        told(0, Trigger.UNPAIRED, Reason.BANNED, status=403),
        told(0, Trigger.UNPAIRED, Reason.BANNED_TEMPORARILY, status=402),
    ],
)
def test_sign_of_a_connection_makes_a_shown_qr_a_loss(sign: Signal) -> None:
    channel, _ = after(sign, told(20, Trigger.QR_ISSUED, Reason.QR_SHOWN))

    assert (channel.has_been_open, channel.status.reason) == (True, Reason.SCAN_NEEDED)


def test_logout_by_the_phone_is_a_sign_ten_seconds_later_and_opens_its_incident_after_its_grace() -> None:
    channel, _ = after(logout(0))

    assert (channel.has_been_open, channel.due_at) == (False, at(10))
    channel, effects = waited(channel, 15)
    assert channel.has_been_open
    assert [type(effect) for effect in effects] == [Open]
    assert channel.incident is not None
    assert (channel.incident.opened_at, channel.incident.started_at) == (at(15), at(0))


def test_qr_is_a_needed_scan_once_the_logout_before_it_counts() -> None:
    channel, _ = after(logout(0), told(4, Trigger.QR_ISSUED, Reason.QR_SHOWN))
    assert channel.status.reason is Reason.QR_SHOWN

    channel, _ = step(channel, Deadline(at(10)))

    assert channel.status.reason is Reason.SCAN_NEEDED


@pytest.mark.parametrize("reason", [Reason.LOGGED_OUT_BY_API, Reason.INSTANCE_REMOVED])
@pytest.mark.parametrize("seconds", [0, 7, 21])
def test_logout_near_an_end_by_the_api_is_no_sign(reason: Reason, seconds: float) -> None:
    signals = sorted([logout(14), by_api(seconds, reason)], key=lambda it: it.received_at)

    channel, effects = waited(after(*signals)[0], 9000)

    far = abs(14 - seconds) > 10
    assert (channel.has_been_open, bool(effects)) == (far, far)


def test_late_end_by_the_api_counts_by_when_it_was_emitted() -> None:
    api = by_api(8, at=at(0), emitted_at=at(0))

    channel, effects = waited(after(logout(0), api)[0], 9000)

    assert (channel.has_been_open, effects) == (False, [])


def test_logout_by_the_api_whose_close_has_a_code_is_no_sign_in_any_order() -> None:
    ended = (by_api(0, status=401), told(0.01, Trigger.UNPAIRED, Reason.LOGGED_OUT), logout(0.02))

    for signals in (ended, ended[::-1]):
        channel, effects = waited(after(*signals)[0], 9000)
        assert (channel.has_been_open, effects) == (False, [])


def test_redelivered_logout_is_decided_once() -> None:
    again = logout(0, fresh=False, received_at=at(100))

    channel, effects = waited(after(by_api(0), logout(0), Deadline(at(10)), again)[0], 9000)

    assert (channel.has_been_open, effects) == (False, [])


def test_wrong_key_opens_an_incident_that_ends_with_it_and_proves_no_connection() -> None:
    channel, _ = after(unauthorized(0), unauthorized(10))

    channel, effects = waited(channel, 340)

    assert [type(effect) for effect in effects] == [Open]
    assert channel.incident is not None
    assert (channel.incident.reason, channel.incident.started_at) == (Reason.UNAUTHORIZED, at(0))
    assert not channel.has_been_open
    channel, ended = step(channel, answer(350, Trigger.CONNECTING, version=channel.version))
    assert [(type(it), it.why) for it in ended if isinstance(it, Resolve)] == [(Resolve, "never_connected")]
    assert (channel.state, channel.incident, channel.due_at) == (State.CONNECTING, None, None)


def test_missing_instance_opens_an_incident_that_ends_when_it_is_there_again() -> None:
    limit = told(0, Trigger.UNPAIRED, Reason.QR_LIMIT)

    channel, effects = waited(after(limit, missing(5000), missing(5010))[0], 9000)

    assert [it.incident.started_at for it in effects if isinstance(it, Open)] == [at(5000)]
    channel, ended = step(channel, told(9100, Trigger.QR_ISSUED, Reason.QR_SHOWN))
    assert [it.why for it in ended if isinstance(it, Resolve)] == ["never_connected"]
    assert (channel.status.reason, channel.has_been_open) == (Reason.QR_SHOWN, False)


def test_silence_neither_ends_nor_repeats_the_incident_of_a_wrong_key() -> None:
    channel, effects = waited(after(unauthorized(0), unauthorized(10))[0], 340)

    for seconds in (400, 420, 440):
        channel, more = step(channel, answer(seconds, Trigger.UNREACHABLE, version=channel.version))
        effects += more

    assert channel.incident is not None
    assert not [it for it in effects if isinstance(it, Resolve)]


def test_incident_of_a_wrong_key_ends_as_recovered_when_the_channel_opens() -> None:
    channel, _ = waited(after(unauthorized(0), unauthorized(10))[0], 340)

    channel, effects = step(channel, answer(350, Trigger.OPENED, version=channel.version))

    assert [it.why for it in effects if isinstance(it, Resolve)] == ["recovered"]
    assert (channel.has_been_open, channel.fault_at) == (True, None)


def test_wrong_key_that_is_put_right_in_time_opens_nothing() -> None:
    good = answer(100, Trigger.CONNECTING)

    channel, effects = waited(after(unauthorized(0), unauthorized(10), good)[0], 9000)

    assert (effects, channel.due_at) == ([], None)


def test_channel_that_was_connected_needs_no_fault() -> None:
    _, effects = waited(after(OPENED, told(10, Trigger.DROPPED, Reason.CONNECTION_LOST))[0], 340)

    assert [type(effect) for effect in effects] == [Open]
