"""What one channel does with probes, live traffic, deadlines and words of operators, without waiting."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from statemachine.model import (
    Channel,
    Evidence,
    Monitoring,
    Reason,
    Rules,
    State,
    Status,
    Trigger,
    Wait,
)
from statemachine.signals import (
    Alive,
    Answered,
    Change,
    Configured,
    Deadline,
    Effect,
    GatewaySilence,
    Heard,
    IncidentOpened,
    IncidentResolved,
    LeftTogether,
    Open,
    Resolve,
    Signal,
)
from statemachine.step import step

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after T0."""
    return T0 + timedelta(seconds=seconds)


def told(seconds: float, trigger: Trigger, reason: Reason | None = None, **more: object) -> Heard:
    """A webhook that arrived as it was emitted."""
    heard = Heard(at(seconds), at(seconds), at(seconds), trigger, reason)
    return heard._replace(**more)  # type: ignore[arg-type]


OPENED = told(0, Trigger.OPENED)


def after(*signals: Signal, rules: Rules | None = None) -> tuple[Channel, list[Effect]]:
    """A new channel after these signals, and all that followed; probes know the version of their moment."""
    channel, effects = Channel(rules=rules or Rules()), list[Effect]()
    for signal in signals:
        current = replace(signal, version=channel.version) if isinstance(signal, Answered) else signal
        channel, more = step(channel, current)
        effects += more
    return channel, effects


def answer(seconds: float, trigger: Trigger, reason: Reason | None = None, **more: object) -> Answered:
    """A probe that began then and took a second."""
    answered = Answered(at(seconds + 1), at(seconds), 0, trigger, reason)
    return replace(answered, **more)  # type: ignore[arg-type]


def missing(seconds: float) -> Answered:
    return answer(seconds, Trigger.SESSION_MISSING, Reason.SESSION_MISSING, status=404)


def silence(seconds: float) -> Answered:
    return answer(seconds, Trigger.UNREACHABLE, Reason.UNREACHABLE)


def close(seconds: float) -> Answered:
    return answer(seconds, Trigger.DROPPED, Reason.DISCONNECTED)


def test_two_missing_answers_in_a_row_are_a_verdict_dated_at_the_first() -> None:
    channel, _ = after(OPENED, missing(100), missing(110))

    assert channel.status == Status(State.UNPAIRED, Reason.SESSION_MISSING, 404)
    assert channel.first_unhealthy_at == channel.since == at(100)


def test_answers_closer_than_retry_after_count_once() -> None:
    channel, _ = after(OPENED, missing(100), missing(105), missing(109))

    assert channel.state is State.OPEN


def test_another_answer_between_starts_the_count_again() -> None:
    channel, _ = after(OPENED, missing(100), silence(110), missing(120))

    assert channel.state is State.OPEN


def test_a_good_answer_forgets_the_count() -> None:
    channel, _ = after(
        OPENED, silence(100), silence(110), answer(120, Trigger.OPENED), silence(130), silence(140)
    )

    assert channel.state is State.OPEN


def test_a_state_changing_webhook_forgets_the_count() -> None:
    webhook = told(105, Trigger.CONNECTING, Reason.CONNECTING)

    channel, _ = after(OPENED, missing(100), webhook, missing(110))

    assert channel.state is State.CONNECTING


def test_three_silences_of_any_sort_are_an_error() -> None:
    unloaded = answer(110, Trigger.NOT_LOADED, Reason.NOT_LOADED)

    channel, _ = after(OPENED, silence(100), unloaded, silence(120))

    assert channel.status[:2] == (State.ERROR, Reason.UNREACHABLE)


def test_close_in_a_flood_needs_two_without_a_connecting_between() -> None:
    connecting = told(0, Trigger.CONNECTING, Reason.CONNECTING)
    flood = told(105, Trigger.CONNECTING, Reason.CONNECTING)

    between, _ = after(connecting, close(100), flood, close(110))
    without, _ = after(connecting, close(100), close(110))

    assert (between.state, without.state) == (State.CONNECTING, State.DROPPED)


def test_probe_that_began_before_a_change_is_dropped_and_made_again_at_once() -> None:
    before, _ = after(OPENED)
    moved, _ = step(before, told(10, Trigger.CONNECTING, Reason.CONNECTING))

    channel, _ = step(moved, answer(9, Trigger.OPENED, version=before.version))

    assert channel.state is State.CONNECTING
    assert channel.probe_due_at == at(10)


def test_webhook_older_than_the_last_probe_moves_nothing_but_asks_for_another() -> None:
    late = Heard(at(130), at(90), at(90), Trigger.UNPAIRED, Reason.LOGGED_OUT)

    channel, _ = after(OPENED, answer(100, Trigger.OPENED), late)

    assert channel.state is State.OPEN
    assert channel.probe_due_at == at(130)


def test_webhook_within_the_tolerance_before_a_probe_still_counts() -> None:
    late = Heard(at(130), at(98.5), at(98.5), Trigger.UNPAIRED, Reason.LOGGED_OUT)

    channel, _ = after(OPENED, answer(100, Trigger.OPENED), late)

    assert channel.state is State.UNPAIRED


def test_silence_never_covers_a_loss_and_does_not_outdate_webhooks() -> None:
    lost = told(50, Trigger.DROPPED, Reason.CONNECTION_CLOSED)
    late_open = Heard(at(150), at(90), at(90), Trigger.OPENED)

    channel, _ = after(OPENED, lost, silence(100), silence(110), silence(120))
    back, _ = step(channel, late_open)

    assert channel.status[:2] == (State.DROPPED, Reason.CONNECTION_CLOSED)
    assert back.state is State.OPEN


def test_equal_times_put_opened_before_unpaired_and_ask_for_a_probe() -> None:
    opened = told(10, Trigger.OPENED)
    unpaired = told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)._replace(received_at=at(9))

    one, _ = after(unpaired, opened)
    other, _ = after(opened, unpaired)

    assert one.state is other.state is State.UNPAIRED
    assert one.probe_due_at == at(10)


def test_qr_that_nobody_scans_yields_to_a_probe_after_three_minutes() -> None:
    shown = told(0, Trigger.QR_ISSUED, Reason.QR_SHOWN)
    young, _ = after(shown, answer(170, Trigger.CONNECTING, Reason.CONNECTING))
    old, _ = after(shown, answer(181, Trigger.CONNECTING, Reason.CONNECTING))

    assert (young.state, old.state) == (State.QR_PENDING, State.CONNECTING)


def test_lost_session_without_recovery_is_unpaired_at_once() -> None:
    answered = answer(100, Trigger.DROPPED, Reason.DISCONNECTED, session_lost=True)

    with_recovery, _ = after(OPENED, answered)
    without, _ = after(OPENED, answered, rules=Rules(recovery=False))

    assert (with_recovery.state, without.state) == (State.DROPPED, State.UNPAIRED)


def test_live_traffic_keeps_an_open_channel_fresh() -> None:
    channel, _ = after(OPENED, Alive(at(100)))

    assert (channel.fresh_at, channel.probe_due_at) == (at(100), at(220))


def test_live_traffic_after_the_failed_probe_ends_an_error() -> None:
    error: list[Signal] = [OPENED, silence(100), silence(110), silence(120)]

    older, _ = after(*error, Alive(at(119)))
    newer, _ = after(*error, Alive(at(125)))

    assert (older.state, newer.state) == (State.ERROR, State.OPEN)


def test_live_traffic_elsewhere_asks_for_a_probe_at_most_every_ten_seconds() -> None:
    dropped = told(50, Trigger.DROPPED, Reason.CONNECTION_CLOSED)

    never_probed, _ = after(OPENED, dropped, Alive(at(52)))
    just_probed, _ = after(OPENED, dropped, close(55), Alive(at(57)))

    assert never_probed.probe_due_at == at(52)
    assert just_probed.probe_due_at == at(65)


def test_gaps_between_probes_double_up_to_five_minutes() -> None:
    dropped = told(0, Trigger.DROPPED, Reason.CONNECTION_CLOSED)
    gaps = []
    channel, _ = after(dropped)
    for number in range(1, 9):
        word = Trigger.CONNECTING if number % 2 else Trigger.DROPPED
        probe = answer(number * 1000, word, Reason.DISCONNECTED, version=channel.version, certain=True)
        channel, _ = step(channel, probe)
        assert channel.probe_due_at is not None
        gaps.append((channel.probe_due_at - probe.received_at).total_seconds())

    assert gaps == [20, 40, 80, 160, 300, 300, 300, 300]


def test_gaps_begin_anew_after_any_number_of_probes_that_said_open() -> None:
    channel, _ = after(OPENED)
    for number in range(1, 6):
        channel, _ = step(channel, answer(number * 1000, Trigger.OPENED, version=channel.version))

    gaps = []
    for number in range(6, 9):
        probe = answer(number * 1000, Trigger.DROPPED, Reason.DISCONNECTED, version=channel.version)
        channel, _ = step(channel, probe)
        assert channel.probe_due_at is not None
        gaps.append((channel.probe_due_at - probe.received_at).total_seconds())

    assert gaps == [10, 20, 40]


@pytest.mark.parametrize("trigger", [Trigger.UNREACHABLE, Trigger.SESSION_MISSING])
def test_answers_that_say_nothing_new_let_the_gaps_grow(trigger: Trigger) -> None:
    reason = Reason(trigger.value)
    channel, _ = after(OPENED)
    gaps = []
    for number in range(1, 9):
        channel, _ = step(channel, probe := answer(number * 1000, trigger, reason, version=channel.version))
        assert channel.probe_due_at is not None
        gaps.append((channel.probe_due_at - probe.received_at).total_seconds())

    needed = {Trigger.UNREACHABLE: 3, Trigger.SESSION_MISSING: 2}[trigger]
    assert gaps[:needed] == [10] * needed
    assert gaps[needed : needed + 3] == [20, 40, 80]


def test_life_between_two_odd_answers_clears_the_count() -> None:
    missing = Trigger.SESSION_MISSING, Reason.SESSION_MISSING
    first, second = answer(100, *missing, version=1), answer(200, *missing, version=1)

    lost, _ = after(OPENED, first, second)
    kept, _ = after(OPENED, first, Alive(at(150)), second)

    assert (lost.state, kept.state) == (State.UNPAIRED, State.OPEN)


def test_a_wait_for_a_probe_that_nobody_watched_begins_anew() -> None:
    dropped = told(10, Trigger.DROPPED, Reason.CONNECTION_LOST)

    waiting, _ = after(OPENED, dropped, Deadline(at(311)))
    _, effects = step(waiting, Deadline(at(342)))
    later, nothing = step(waiting, Deadline(at(90_000)))

    assert [type(effect) for effect in effects] == [Open]
    assert nothing == ()
    assert later.awaiting_probe == Wait(at(90_000), at(90_000 + 30))


def test_a_probe_that_stands_in_a_moving_queue_is_waited_for_but_not_for_ever() -> None:
    dropped = told(10, Trigger.DROPPED, Reason.CONNECTION_LOST)
    queued = [Deadline(at(311 + 30 * n), queued=True) for n in range(1, 11)]

    waiting, nothing = after(OPENED, dropped, Deadline(at(311)), *queued[:-1])
    stuck, too_long = after(OPENED, dropped, Deadline(at(311)), *queued)
    answered, recovered = after(
        OPENED, dropped, Deadline(at(311)), *queued[:-1], answer(590, Trigger.OPENED), queued[-1]
    )

    assert (nothing, waiting.due_at, waiting.probe_due_at) == ([], at(611), at(20))
    assert [type(effect) for effect in too_long] == [Open]
    assert stuck.awaiting_probe is None
    assert (recovered, answered.state) == ([], State.OPEN)


def test_no_answer_says_nothing_fresh_about_a_dropped_channel() -> None:
    dropped = told(10, Trigger.DROPPED, Reason.CONNECTION_LOST)
    timeout = answer(200, Trigger.UNREACHABLE, Reason.UNREACHABLE, version=2)

    channel, effects = after(OPENED, dropped, timeout, Deadline(at(311)))

    assert effects == []
    assert channel.awaiting_probe == Wait(at(311), at(311 + 30))


def test_incident_opens_on_fresh_evidence_when_its_grace_ends() -> None:
    rules = Rules(threshold=timedelta(seconds=60))
    dropped = told(10, Trigger.DROPPED, Reason.CONNECTION_LOST)

    early, nothing = after(OPENED, dropped, Deadline(at(69)), rules=rules)
    channel, effects = after(OPENED, dropped, Deadline(at(71)), rules=rules)

    assert (early.due_at, nothing) == (at(70), [])
    assert channel.incident is not None
    assert effects == [Open(channel.incident)]
    assert (channel.incident.kind, channel.incident.started_at) == ("disconnected", at(10))
    assert channel.incident.opened_at == at(71)


def test_incident_on_old_evidence_waits_for_a_probe_and_then_opens_unless_it_says_open() -> None:
    lost: list[Signal] = [OPENED, told(10, Trigger.DROPPED, Reason.CONNECTION_LOST), Deadline(at(310))]

    waiting, nothing = after(*lost)
    confirmed, opened = after(*lost, close(311), Deadline(at(313)))
    recovered, _ = after(*lost, answer(311, Trigger.OPENED), Deadline(at(341)))
    unprobed, too = after(*lost, Deadline(at(340)))

    assert (waiting.incident, nothing) == (None, [])
    assert (waiting.probe_due_at, waiting.due_at) == (at(20), at(340))
    assert waiting.awaiting_probe == Wait(at(310), at(310 + 30))
    assert len(opened) == len(too) == 1
    assert confirmed.incident is not None
    assert unprobed.incident is not None
    assert (recovered.state, recovered.incident) == (State.OPEN, None)


def test_incident_on_old_evidence_waits_for_new_evidence_while_nothing_probes() -> None:
    rules = Rules(probe_wait=None)
    lost: list[Signal] = [OPENED, told(10, Trigger.DROPPED, Reason.CONNECTION_LOST), Deadline(at(310))]

    waiting, _ = after(*lost, Deadline(at(9000)), rules=rules)
    again, _ = after(
        *lost, told(9001, Trigger.CONNECTING, Reason.CONNECTING), Deadline(at(9002)), rules=rules
    )

    assert (waiting.incident, waiting.due_at) == (None, None)
    assert again.incident is not None
    assert again.incident.started_at == at(10)


def test_terminal_state_waits_only_for_its_grace_unless_the_tenant_wants_the_threshold() -> None:
    lost: list[Signal] = [OPENED, told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)]

    quick, _ = after(*lost)
    slow, _ = after(*lost, rules=Rules(terminal_waits=True))

    assert (quick.due_at, slow.due_at) == (at(25), at(310))


def test_wandering_between_unhealthy_states_keeps_the_clock_and_changes_the_kind() -> None:
    rules = Rules(threshold=timedelta(seconds=60))
    signals: list[Signal] = [
        OPENED,
        told(10, Trigger.CONNECTING, Reason.CONNECTING),
        told(40, Trigger.DROPPED, Reason.CONNECTION_LOST),
        Deadline(at(70)),
        told(80, Trigger.QR_ISSUED, Reason.QR_SHOWN),
    ]

    channel, effects = after(*signals, rules=rules)

    assert [type(effect) for effect in effects] == [Open, Change]
    assert channel.incident is not None
    assert (channel.incident.kind, channel.incident.reason) == ("qr_pending", Reason.SCAN_NEEDED)
    assert channel.incident.started_at == at(10)


@pytest.mark.parametrize("trigger", [Trigger.CONNECTING, Trigger.QR_ISSUED, Trigger.UNPAIRED])
def test_channel_that_was_never_open_is_no_incident(trigger: Trigger) -> None:
    channel, effects = after(told(0, trigger), Deadline(at(10_000)))

    assert (effects, channel.due_at) == ([], None)


def test_late_opened_makes_a_shown_qr_a_loss() -> None:
    late = Heard(at(5), at(-100), at(-100), Trigger.OPENED)

    channel, _ = after(told(0, Trigger.QR_ISSUED, Reason.QR_SHOWN), late)

    assert channel.status == Status(State.QR_PENDING, Reason.SCAN_NEEDED)
    assert channel.due_at == at(20)


def flaps(count: int, apart: float = 60, length: float = 3) -> list[Signal]:
    """Leave open and come back so many times, each time after so many seconds."""
    return [
        signal
        for number in range(count)
        for signal in (
            told(number * apart + 1, Trigger.DROPPED, Reason.CONNECTION_REPLACED),
            told(number * apart + 1 + length, Trigger.OPENED),
        )
    ]


def test_five_departures_within_half_an_hour_are_one_incident_that_ends_after_ten_stable_minutes() -> None:
    four, nothing = after(OPENED, *flaps(4))
    five, opened = after(OPENED, *flaps(5), Deadline(at(251)))
    early, still = after(OPENED, *flaps(5), Deadline(at(251)), Deadline(at(244 + 599)))
    stable, ended = after(OPENED, *flaps(5), Deadline(at(251)), Deadline(at(244 + 600)))

    assert (four.incident, nothing) == (None, [])
    assert [type(effect) for effect in opened] == [Open]
    assert five.incident is not None
    assert five.incident.flapping
    assert five.due_at == at(844)
    assert (len(still), early.incident is not None) == (1, True)
    assert isinstance(ended[-1], Resolve)
    assert (ended[-1].why, stable.incident, stable.departures) == ("stable", None, ())


def test_five_departures_in_more_than_half_an_hour_are_none() -> None:
    _, effects = after(OPENED, *flaps(5, apart=460))

    assert effects == []


def test_removing_a_channel_ends_its_incident_without_telling() -> None:
    removed = Configured(at(50), Rules(monitoring=Monitoring.REMOVED))
    lost: list[Signal] = [OPENED, told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT), Deadline(at(25))]

    channel, effects = after(*lost, removed)

    assert isinstance(effects[-1], Resolve)
    assert (effects[-1].why, effects[-1].alert) == ("channel_removed", False)
    assert (channel.due_at, channel.probe_due_at) == (None, None)


def test_paused_channel_opens_no_incident_until_it_is_resumed() -> None:
    paused = Configured(at(5), Rules(monitoring=Monitoring.PAUSED))
    lost = told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)

    pausing, nothing = after(OPENED, paused, lost, Deadline(at(100)))
    _, opened = after(OPENED, paused, lost, Configured(at(101), Rules()), Deadline(at(102)))

    assert (pausing.due_at, pausing.probe_due_at, nothing) == (None, None, [])
    assert [type(effect) for effect in opened] == [Open]


def test_new_threshold_moves_the_due_time_at_once() -> None:
    dropped = told(10, Trigger.DROPPED, Reason.CONNECTION_LOST)

    channel, _ = after(OPENED, dropped, Configured(at(20), Rules(threshold=timedelta(minutes=1))))

    assert channel.due_at == at(70)


def test_unconfigured_channel_is_never_probed() -> None:
    channel, _ = after(OPENED, told(10, Trigger.CONNECTING), rules=Rules(configured=False))

    assert channel.probe_due_at is None


def test_incident_opened_by_another_application_is_the_channels_own_and_ends_with_opened() -> None:
    opened = IncidentOpened(at(20), "error", "close")

    channel, _ = after(OPENED, told(10, Trigger.CONNECTING), opened)
    _, effects = after(OPENED, told(10, Trigger.CONNECTING), opened, told(30, Trigger.OPENED))

    assert channel.incident is not None
    assert [type(effect) for effect in effects] == [Resolve]


def test_incident_resolved_by_another_application_opens_again_only_at_a_deadline() -> None:
    lost: list[Signal] = [OPENED, told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT), Deadline(at(25))]

    channel, effects = after(*lost, IncidentResolved(at(30)))

    assert (channel.incident, len(effects), channel.due_at) == (None, 1, at(25))


def test_clock_change_keeps_the_state_and_forgets_the_times() -> None:
    older_clock = told(1000, Trigger.OPENED)
    newer_clock = told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)._replace(received_at=at(1001), epoch=1)

    channel, _ = after(older_clock, newer_clock)

    assert channel.state is State.UNPAIRED
    assert channel.evidence.base == Status(State.OPEN)


def test_event_that_says_nothing_is_only_noted() -> None:
    before, _ = after(OPENED)

    channel, effects = step(before, Heard(at(9), at(9), at(9), None))

    assert (channel, effects) == (before._replace(last_event_at=at(9), emitted_at=at(9)), ())


def test_redelivery_neither_moves_nor_freshens() -> None:
    channel, _ = after(OPENED, told(10, Trigger.DROPPED, Reason.CONNECTION_LOST))

    again, _ = step(channel, OPENED._replace(received_at=at(50), fresh=False))

    assert (again.status, again.fresh_at) == (channel.status, channel.fresh_at)
    assert again.evidence == channel.evidence
    assert isinstance(again.evidence, Evidence)


def test_webhook_that_arrived_while_the_probe_ran_stands_on_its_verdict() -> None:
    connecting = told(0, Trigger.CONNECTING, Reason.CONNECTING)
    meanwhile = told(100.5, Trigger.CONNECTING, Reason.CONNECTING)
    before, _ = after(connecting)

    channel, _ = after(
        connecting, meanwhile, answer(100, Trigger.DROPPED, version=before.version, certain=True)
    )

    assert channel.evidence.base.state is State.DROPPED
    assert channel.state is State.CONNECTING


def test_answer_that_began_before_the_last_verdict_is_dropped() -> None:
    channel, _ = after(OPENED, answer(100, Trigger.OPENED), answer(90, Trigger.DROPPED))

    assert channel.state is State.OPEN


def test_the_most_telling_reason_of_a_logout_is_shown_whichever_comes_last() -> None:
    events = [
        told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT_BY_API, status=401),
        told(10.002, Trigger.UNPAIRED, Reason.LOGGED_OUT),
        told(10.004, Trigger.UNPAIRED, Reason.LOGGED_OUT, status=401),
    ]

    forward, _ = after(OPENED, *events)
    backward, _ = after(OPENED, *reversed(events))

    assert forward.status == backward.status == Status(State.UNPAIRED, Reason.LOGGED_OUT_BY_API, 401)


def test_the_gateways_number_is_kept_when_a_later_event_of_the_logout_has_none() -> None:
    numbered = told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT, status=401)
    bare = told(10.002, Trigger.UNPAIRED, Reason.LOGGED_OUT)

    channel, _ = after(OPENED, numbered, bare)

    assert channel.status.code == 401


def test_nobody_is_told_of_the_end_of_an_incident_of_a_paused_channel() -> None:
    lost: list[Signal] = [OPENED, told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT), Deadline(at(25))]

    _, effects = after(
        *lost, Configured(at(30), Rules(monitoring=Monitoring.PAUSED)), told(40, Trigger.OPENED)
    )

    assert isinstance(effects[-1], Resolve)
    assert (effects[-1].why, effects[-1].alert) == ("recovered", False)


def test_incident_of_another_application_keeps_its_start_when_its_kind_changes() -> None:
    opened = IncidentOpened(at(20), "error")

    _, effects = after(OPENED, told(10, Trigger.CONNECTING), opened, told(30, Trigger.DROPPED))

    assert isinstance(effects[-1], Change)
    assert (effects[-1].incident.kind, effects[-1].incident.started_at) == ("disconnected", at(20))


def test_grace_of_a_terminal_state_is_counted_from_its_first_event() -> None:
    lost = told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)

    channel, _ = after(OPENED, lost, told(20, Trigger.QR_ISSUED, Reason.QR_SHOWN))

    assert (channel.status.reason, channel.due_at) == (Reason.SCAN_NEEDED, at(25))


def test_change_of_reason_alone_is_a_change_for_probes() -> None:
    first = told(10, Trigger.DROPPED, Reason.CONNECTION_LOST)
    before, _ = after(OPENED, first)

    channel, _ = step(before, told(20, Trigger.DROPPED, Reason.CONNECTION_CLOSED))

    assert (channel.state, channel.version) == (State.DROPPED, before.version + 1)


def test_world_sees_one_disconnection_when_a_drop_turns_out_terminal() -> None:
    dropped = told(10, Trigger.DROPPED, Reason.CONNECTION_LOST)

    channel, _ = after(OPENED, dropped, told(20, Trigger.UNPAIRED, Reason.LOGGED_OUT))

    assert (channel.since, channel.terminal_at) == (at(10), at(20))


def test_repeated_connecting_is_no_fresh_evidence_and_a_renewed_qr_is() -> None:
    flood, _ = after(OPENED, told(10, Trigger.CONNECTING), told(50, Trigger.CONNECTING))
    qr, _ = after(OPENED, told(10, Trigger.QR_ISSUED), told(50, Trigger.QR_ISSUED))

    assert (flood.fresh_at, qr.fresh_at) == (at(10), at(50))


def test_late_webhook_that_arrived_while_the_probe_ran_does_not_overrule_it() -> None:
    connecting = told(0, Trigger.CONNECTING, Reason.CONNECTING)
    late = Heard(at(100.5), at(50), at(50), Trigger.CONNECTING, Reason.CONNECTING)
    opened = answer(100, Trigger.OPENED)

    before, _ = after(connecting, late, opened)
    behind, _ = after(connecting, opened, late)

    assert before.state is behind.state is State.OPEN


def test_older_traffic_does_not_put_off_a_probe_that_is_due_at_once() -> None:
    late = Heard(at(20), at(-50), at(-50), Trigger.UNPAIRED, Reason.LOGGED_OUT)

    channel, _ = after(OPENED, told(5, Trigger.OPENED), late, Alive(at(18)))

    assert channel.probe_due_at == at(20)


def test_repeated_evidence_does_not_undo_the_growing_gaps() -> None:
    shown = told(0, Trigger.QR_ISSUED, Reason.QR_SHOWN)
    channel, _ = after(shown)
    for number in range(1, 7):
        probe = answer(number * 100, Trigger.QR_ISSUED, Reason.QR_SHOWN, version=channel.version)
        channel, _ = step(channel, probe)

    renewed, _ = step(channel, told(610, Trigger.QR_ISSUED, Reason.QR_SHOWN))

    assert renewed.probe_due_at == channel.probe_due_at == at(601 + 300)


def test_incident_that_another_application_says_of_an_open_channel_waits_for_new_evidence() -> None:
    said = IncidentOpened(at(20), "error")

    unmoved, nothing = after(OPENED, said, Deadline(at(21)))
    _, effects = after(OPENED, said, Deadline(at(21)), told(30, Trigger.OPENED))

    assert (unmoved.incident is not None, nothing) == (True, [])
    assert [type(effect) for effect in effects] == [Resolve]


def test_logout_on_the_phone_proves_that_a_channel_was_connected() -> None:
    logout = told(0, Trigger.UNPAIRED, Reason.LOGGED_OUT, status=401)
    order = told(3, Trigger.UNPAIRED, Reason.LOGGED_OUT_BY_API)

    early, nothing = after(logout, Deadline(at(9)), told(20, Trigger.QR_ISSUED))
    lost, _ = after(logout, Deadline(at(10)), told(20, Trigger.QR_ISSUED))
    ordered, still = after(logout, order, Deadline(at(10)), Deadline(at(1000)))
    _, opened = after(logout, Deadline(at(10)), Deadline(at(15)))

    assert (early.has_been_open, nothing) == (False, [])
    assert lost.status.reason is Reason.SCAN_NEEDED
    assert (ordered.has_been_open, ordered.due_at, still) == (False, None, [])
    assert [type(effect) for effect in opened] == [Open]


def test_ban_proves_that_a_channel_was_connected() -> None:
    _, opened = after(told(0, Trigger.UNPAIRED, Reason.BANNED, status=403), Deadline(at(15)))

    assert [type(effect) for effect in opened] == [Open]


def test_refused_key_of_a_channel_that_was_never_connected_is_an_incident_while_it_lasts() -> None:
    refused = [answer(n, Trigger.UNAUTHORIZED, Reason.UNAUTHORIZED, certain=True) for n in (10, 290)]

    channel, effects = after(*refused, Deadline(at(310)), told(320, Trigger.DROPPED))

    opened, resolved = effects
    assert isinstance(opened, Open)
    assert opened.incident.reason is Reason.UNAUTHORIZED
    assert isinstance(resolved, Resolve)
    assert (resolved.why, channel.has_been_open, channel.due_at) == ("never_connected", False, None)


@pytest.mark.parametrize(
    "trouble",
    [
        told(0, Trigger.DROPPED),
        GatewaySilence(at(100), at(90), Reason.GATEWAY_UNREACHABLE),
        answer(0, Trigger.UNREACHABLE, Reason.UNREACHABLE, certain=True),
    ],
    ids=["close", "silent gateway", "silence"],
)
def test_trouble_of_a_channel_that_was_never_connected_is_no_incident(trouble: Signal) -> None:
    channel, effects = after(trouble, Deadline(at(10_000)))

    assert (effects, channel.due_at, channel.recovery_due_at) == ([], None, None)


def test_change_of_clock_asks_for_a_probe() -> None:
    first = told(10, Trigger.OPENED)._replace(epoch=1)
    second = told(5, Trigger.OPENED)._replace(received_at=at(20), epoch=2)

    channel, _ = after(first, second)

    assert channel.probe_due_at == at(20)


def deaf(seconds: float) -> Answered:
    return answer(seconds, Trigger.DEAF, Reason.OPEN_BUT_DEAD, certain=True)


def test_open_but_dead_is_not_healed_by_what_its_gateway_says() -> None:
    channel, _ = after(OPENED, deaf(100), answer(200, Trigger.OPENED), answer(300, Trigger.OPENED))

    assert channel.status == Status(State.ERROR, Reason.OPEN_BUT_DEAD)
    assert channel.probe_streak is None
    assert channel.probe_due_at is not None
    assert channel.probe_due_at > at(301 + 30)


@pytest.mark.parametrize(
    "proof",
    [
        answer(200, Trigger.OPENED, certain=True),
        Alive(at(200)),
        told(200, Trigger.OPENED),
    ],
    ids=["deep probe", "live traffic", "webhook"],
)
def test_open_but_dead_is_healed_by_proof_of_life(proof: Signal) -> None:
    channel, effects = after(OPENED, deaf(100), Deadline(at(110), certain=True), proof)

    assert channel.state is State.OPEN
    assert effects == []


def test_open_but_dead_opens_its_incident_though_the_gateway_says_open_when_asked_again() -> None:
    _, effects = after(OPENED, deaf(100), Deadline(at(401)), answer(402, Trigger.OPENED), Deadline(at(404)))

    assert [effect.incident.reason for effect in effects if isinstance(effect, Open)] == [
        Reason.OPEN_BUT_DEAD
    ]


def test_gateway_that_was_away_is_believed_again_for_it_may_have_been_restarted() -> None:
    away = [silence(200), silence(240), silence(300)]

    channel, _ = after(OPENED, deaf(100), *away, answer(400, Trigger.OPENED))

    assert channel.state is State.OPEN


def test_answers_counted_elsewhere_date_the_verdict() -> None:
    channel, _ = after(OPENED, replace(deaf(700), counted_from=at(100)))

    assert channel.first_unhealthy_at == channel.since == at(100)


GATEWAY_SILENT = Status(State.ERROR, Reason.GATEWAY_UNREACHABLE)


def silenced(seconds: float, since: float) -> GatewaySilence:
    """The verdict on the gateway, given so many seconds after T0."""
    return GatewaySilence(at(seconds), at(since), Reason.GATEWAY_UNREACHABLE)


@pytest.mark.parametrize("evidence", [told(10, Trigger.OPENED), told(10, Trigger.CONNECTING), Alive(at(10))])
def test_silent_gateway_is_an_error_of_its_channels_from_when_its_silence_began(evidence: Signal) -> None:
    channel, effects = after(evidence, silenced(120, since=100))
    again, _ = step(channel, silenced(150, since=100))

    assert (channel.status, channel.since, effects) == (GATEWAY_SILENT, at(100), [])
    assert again == channel


@pytest.mark.parametrize(
    "trigger", [Trigger.DROPPED, Trigger.UNPAIRED, Trigger.QR_ISSUED], ids=lambda trigger: trigger.value
)
def test_loss_stays_what_it_is_while_its_gateway_is_silent(trigger: Trigger) -> None:
    before, _ = after(OPENED, told(10, trigger))

    channel, _ = step(before, silenced(120, since=100))

    assert channel.status == before.status


def test_silence_of_the_gateway_says_nothing_of_a_channel_that_still_speaks() -> None:
    speaking, _ = after(
        OPENED, told(110, Trigger.CONNECTING), told(111, Trigger.OPENED), silenced(120, since=100)
    )
    mute, _ = step(speaking, silenced(232, since=100))

    assert speaking.state is State.OPEN
    assert (mute.status, mute.since) == (GATEWAY_SILENT, at(111))


def test_gateways_clock_that_is_ahead_hides_no_silence() -> None:
    ahead = told(110, Trigger.OPENED, emitted_at=at(110.5))

    channel, _ = after(OPENED, ahead, silenced(231, since=100))

    assert (channel.status, channel.since) == (GATEWAY_SILENT, at(110))


def test_retry_of_a_webhook_from_before_the_silence_is_no_sign_of_life() -> None:
    late = told(110, Trigger.OPENED)._replace(at=at(50), emitted_at=at(50))

    channel, _ = after(OPENED, late, silenced(120, since=100))

    assert channel.status == GATEWAY_SILENT


@pytest.mark.parametrize(
    "verdict",
    [[silenced(120, since=100)], [silence(100), silence(110), silence(120)]],
    ids=["of the gateway", "of its own probes"],
)
def test_logout_from_before_a_silence_stands_however_late_it_comes(verdict: list[Signal]) -> None:
    logout = told(95, Trigger.UNPAIRED, Reason.LOGGED_OUT, received_at=at(140))

    channel, effects = after(OPENED, *verdict, logout, Deadline(at(155)))
    back, _ = step(channel, answer(200, Trigger.DROPPED, version=channel.version))

    assert channel.status.terminal
    assert [effect.incident.reason for effect in effects if isinstance(effect, Open)] == [Reason.LOGGED_OUT]
    assert back.status.reason is Reason.LOGGED_OUT


@pytest.mark.parametrize(
    "verdict",
    [[silenced(120, since=100)], [silence(100), silence(110), silence(120)]],
    ids=["of the gateway", "of its own probes"],
)
def test_logout_that_was_taken_back_before_a_silence_is_none_however_late_it_comes(
    verdict: list[Signal],
) -> None:
    logout = told(80, Trigger.UNPAIRED, Reason.LOGGED_OUT, received_at=at(125))
    opened = told(90, Trigger.OPENED)

    channel, _ = after(opened, *verdict, logout)

    assert channel.state is State.ERROR
    assert channel.probe_due_at == at(125)
    assert channel.fresh_at == after(opened, *verdict)[0].fresh_at


@pytest.mark.parametrize(
    "newer",
    [answer(101, Trigger.OPENED), told(101, Trigger.OPENED), Alive(at(101))],
    ids=["probe", "webhook", "traffic"],
)
def test_gateways_verdict_that_comes_late_overrules_no_newer_evidence(newer: Signal) -> None:
    before, _ = after(OPENED, newer)

    late, _ = step(before, silenced(120, since=100))

    assert late == before


def test_answer_to_a_probe_from_before_the_silence_does_not_deny_it() -> None:
    channel, _ = after(OPENED, answer(99.5, Trigger.OPENED), silenced(120, since=100))

    assert (channel.status, channel.since) == (GATEWAY_SILENT, at(100))


def test_own_unanswered_probe_never_replaces_the_gateways_reason_while_that_may_hold() -> None:
    own = [silence(10 * n) for n in range(1, 4)]
    both, _ = after(OPENED, *own, silenced(45, since=10))
    later, _ = after(OPENED, *own, silenced(45, since=10), *(silence(50 + 10 * n) for n in range(3)))
    up = [replace(silence(100 + 10 * n), own=True) for n in range(3)]
    hanging, _ = after(OPENED, *own, silenced(45, since=10), *up)

    assert both.status == later.status == GATEWAY_SILENT
    assert hanging.status.reason is Reason.UNREACHABLE


def test_silent_gateways_channels_open_at_their_threshold_while_a_trial_is_young() -> None:
    rules = Rules(threshold=timedelta(seconds=60))
    due = Deadline(at(160), gateway_failed_at=at(150))

    channel, opened = after(OPENED, silenced(120, since=100), due, rules=rules)

    assert [type(effect) for effect in opened] == [Open]
    assert channel.incident is not None
    assert (channel.incident.kind, channel.incident.started_at) == ("error", at(100))


def test_after_a_stop_of_ours_the_silent_gateway_is_tried_first() -> None:
    rules = Rules(threshold=timedelta(seconds=60))
    due = Deadline(at(4000), gateway_failed_at=at(150))

    waiting, nothing = after(OPENED, silenced(120, since=100), due, rules=rules)
    _, opened = step(waiting, Deadline(at(4005), gateway_failed_at=at(4001)))
    back, still = step(waiting, answer(4002, Trigger.OPENED, version=waiting.version))

    assert (waiting.incident, waiting.due_at, nothing) == (None, at(4005), [])
    assert [type(effect) for effect in opened] == [Open]
    assert (back.state, still) == (State.OPEN, ())


def test_due_incident_waits_for_the_channels_own_answer_while_the_gateway_settles() -> None:
    rules = Rules(threshold=timedelta(seconds=60))
    due = Deadline(at(160), gateway_settles_until=at(210))
    waiting, nothing = after(OPENED, silenced(120, since=100), due, rules=rules)

    _, opened = step(waiting, replace(due, received_at=at(210)))
    _, told_now = step(waiting, answer(170, Trigger.CONNECTING, version=waiting.version))

    assert (waiting.incident, waiting.due_at, nothing) == (None, at(210), [])
    assert [type(effect) for effect in opened] == [Open]
    assert told_now == ()


def test_refused_key_is_no_trouble_of_a_channel_that_still_speaks() -> None:
    refused = [answer(seconds, Trigger.UNAUTHORIZED, Reason.UNAUTHORIZED) for seconds in (50, 70)]
    later = [answer(seconds, Trigger.UNAUTHORIZED, Reason.UNAUTHORIZED) for seconds in (200, 220)]

    speaking, _ = after(OPENED, Alive(at(40)), *refused)
    mute, _ = after(OPENED, Alive(at(40)), *refused, *later)
    still, _ = step(mute, Alive(at(230)))

    assert speaking.state is State.OPEN
    assert mute.status[:2] == still.status[:2] == (State.ERROR, Reason.UNAUTHORIZED)


def test_departures_shorter_than_two_seconds_are_no_flapping_before_the_twentieth() -> None:
    _, nothing = after(OPENED, *flaps(19, apart=20, length=0.3), Deadline(at(600)))
    channel, opened = after(OPENED, *flaps(20, apart=20, length=0.3), Deadline(at(391)))

    assert nothing == []
    assert [type(effect) for effect in opened] == [Open]
    assert channel.incident is not None
    assert (channel.incident.reason, channel.incident.departures) == (Reason.FLAPPING, 20)


def test_departures_with_others_of_the_gateway_are_not_counted() -> None:
    together = LeftTogether(at(245), at(240), at(242))

    channel, effects = after(OPENED, *flaps(5), together, Deadline(at(300)))

    assert (channel.due_at, effects) == (None, [])


def test_departures_by_the_gateways_verdict_or_its_restart_are_not_counted() -> None:
    verdicts = [
        signal
        for n in range(6)
        for signal in (silenced(n * 60 + 10, since=n * 60 + 5), told(n * 60 + 30, Trigger.OPENED))
    ]
    restarts = [
        signal
        for n in range(6)
        for signal in (
            told(n * 60 + 10, Trigger.CONNECTING, Reason.RESTART_REQUIRED),
            told(n * 60 + 15, Trigger.OPENED),
        )
    ]

    for signals in (verdicts, restarts):
        channel, effects = after(OPENED, *signals, Deadline(at(1000)))

        assert (channel.departures, effects) == ((), [])


def test_flapping_is_known_ten_seconds_after_its_last_departure_and_told_as_such() -> None:
    waiting, nothing = after(OPENED, *flaps(5))
    channel, opened = step(waiting, Deadline(at(251)))

    assert (waiting.incident, waiting.due_at, nothing) == (None, at(251), [])
    assert [type(effect) for effect in opened] == [Open]
    assert channel.incident is not None
    assert channel.incident[:3] == ("disconnected", "disconnected/dropped", at(241))
    assert (channel.incident.reason, channel.incident.departures) == (Reason.FLAPPING, 5)


def test_flapping_of_a_channel_that_is_paused_meanwhile_is_forgotten() -> None:
    paused = Configured(at(242.5), Rules(monitoring=Monitoring.PAUSED))

    channel, effects = after(OPENED, *flaps(5), paused, Deadline(at(255)))

    assert (channel.departures, effects) == ((), [])
