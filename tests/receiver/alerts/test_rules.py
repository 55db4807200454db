"""Every branch of deciding, by its named reason."""

from datetime import UTC, datetime, timedelta

import pytest

from receiver.alerts.rules import (
    LATE,
    REMINDED_LATER,
    AlertFacts,
    DecisionReason,
    OpeningDelivery,
    Recipient,
    SubjectState,
    reason_for_all,
    reason_for_change,
    reason_for_expiry,
    reason_for_one,
    reason_for_reminder,
    reason_for_state,
    wants,
)

WELL = SubjectState()
OVER = SubjectState(is_over=True)
QUIET = SubjectState(quiet_until=datetime(2026, 1, 1, tzinfo=UTC))
OPENED = AlertFacts("incident.opened", False, WELL)
RESOLVED = AlertFacts("incident.resolved", True, OVER)
HERE = Recipient()


@pytest.mark.parametrize(
    ("alert", "why"),
    [
        (OPENED, None),
        (RESOLVED, None),
        (OPENED._replace(subject=SubjectState(removed=True, paused=True)), DecisionReason.REMOVED),
        (OPENED._replace(subject=SubjectState(paused=True, alerts_enabled=False)), DecisionReason.PAUSED),
        (OPENED._replace(subject=QUIET._replace(alerts_enabled=False)), DecisionReason.ALERTS_DISABLED),
        (OPENED._replace(subject=QUIET), DecisionReason.MAINTENANCE),
        (RESOLVED._replace(subject=QUIET._replace(is_over=True)), DecisionReason.MAINTENANCE),
        (OPENED._replace(subject=OVER), None),
        (OPENED._replace(subject=OVER, was_held=True), DecisionReason.OVER_BEFORE_TOLD),
        (OPENED._replace(was_held=True), None),
        (OPENED._replace(subject=OVER, age=2 * LATE), DecisionReason.OVER_BEFORE_TOLD),
        (OPENED._replace(age=2 * LATE), None),
        (RESOLVED._replace(age=2 * LATE, was_held=True), None),
    ],
)
def test_what_speaks_against_telling_anybody(alert: AlertFacts, why: DecisionReason | None) -> None:
    assert reason_for_all(alert) is why


@pytest.mark.parametrize(
    ("alert", "recipient", "opening", "why"),
    [
        (OPENED, HERE, OpeningDelivery.NONE, DecisionReason.OPENED),
        (OPENED, HERE._replace(disabled=True, known=False), OpeningDelivery.NONE, DecisionReason.DISABLED),
        (OPENED, HERE._replace(known=False, events=()), OpeningDelivery.NONE, DecisionReason.UNKNOWN_KIND),
        (
            OPENED,
            HERE._replace(events=["incident.resolved"]),
            OpeningDelivery.NONE,
            DecisionReason.NOT_WANTED,
        ),
        (OPENED, HERE._replace(has_recipients=False), OpeningDelivery.NONE, DecisionReason.NO_RECIPIENTS),
        (RESOLVED, HERE, OpeningDelivery.DELIVERED, DecisionReason.RESOLVED),
        (RESOLVED, HERE, OpeningDelivery.SENT, DecisionReason.RESOLVED),
        (RESOLVED, HERE, OpeningDelivery.WAITING, DecisionReason.OVER_BEFORE_TOLD),
        (RESOLVED, HERE, OpeningDelivery.NONE, DecisionReason.OPENING_NOT_TOLD),
        (
            RESOLVED,
            HERE._replace(events=["incident.opened"]),
            OpeningDelivery.DELIVERED,
            DecisionReason.NOT_WANTED,
        ),
        (
            RESOLVED,
            HERE._replace(events=["incident.opened"]),
            OpeningDelivery.WAITING,
            DecisionReason.OVER_BEFORE_TOLD,
        ),
        (RESOLVED, HERE._replace(disabled=True), OpeningDelivery.DELIVERED, DecisionReason.DISABLED),
        (
            RESOLVED,
            HERE._replace(has_recipients=False),
            OpeningDelivery.DELIVERED,
            DecisionReason.NO_RECIPIENTS,
        ),
    ],
)
def test_why_a_destination_is_told_or_not(
    alert: AlertFacts, recipient: Recipient, opening: OpeningDelivery, why: DecisionReason
) -> None:
    assert reason_for_one(alert, recipient, opening) is why


@pytest.mark.parametrize(
    ("subject", "recipient", "opening", "acknowledged", "why"),
    [
        (WELL, HERE, OpeningDelivery.DELIVERED, False, DecisionReason.REMINDER),
        (OVER, HERE, OpeningDelivery.DELIVERED, True, DecisionReason.OVER_BEFORE_TOLD),
        (WELL, HERE, OpeningDelivery.DELIVERED, True, DecisionReason.ACKNOWLEDGED),
        (WELL, HERE._replace(disabled=True), OpeningDelivery.DELIVERED, False, DecisionReason.DISABLED),
        (WELL, HERE._replace(known=False), OpeningDelivery.DELIVERED, False, DecisionReason.UNKNOWN_KIND),
        (WELL, HERE._replace(reminds=False), OpeningDelivery.DELIVERED, False, DecisionReason.NO_REMINDERS),
        (WELL, HERE, OpeningDelivery.SENT, False, DecisionReason.NOT_YET_TOLD),
        (WELL, HERE, OpeningDelivery.NONE, False, DecisionReason.OPENING_NOT_TOLD),
        (
            WELL,
            HERE._replace(has_recipients=False),
            OpeningDelivery.DELIVERED,
            False,
            DecisionReason.NO_RECIPIENTS,
        ),
        (QUIET, HERE, OpeningDelivery.DELIVERED, False, DecisionReason.MAINTENANCE),
        (SubjectState(paused=True), HERE, OpeningDelivery.DELIVERED, False, DecisionReason.PAUSED),
        (
            SubjectState(alerts_enabled=False),
            HERE,
            OpeningDelivery.DELIVERED,
            False,
            DecisionReason.ALERTS_DISABLED,
        ),
        (SubjectState(removed=True), HERE, OpeningDelivery.DELIVERED, False, DecisionReason.REMOVED),
    ],
)
def test_why_a_destination_is_reminded_or_not(
    subject: SubjectState,
    recipient: Recipient,
    opening: OpeningDelivery,
    acknowledged: bool,
    why: DecisionReason,
) -> None:
    asked = recipient._replace(reminds=why is not DecisionReason.NO_REMINDERS)

    assert reason_for_reminder(subject, asked, opening, acknowledged) is why


def test_only_what_tells_sends_and_nothing_that_sends_waits() -> None:
    assert {why for why in DecisionReason if why.sends}.isdisjoint(REMINDED_LATER)
    assert not DecisionReason.MAINTENANCE.sends
    assert DecisionReason.OPENED.sends


@pytest.mark.parametrize(
    ("events", "event", "wanted"),
    [
        (["incident.opened"], "incident.opened", True),
        (["incident.opened"], "incident.resolved", False),
        (["gateway.*"], "gateway.resolved", True),
        (["gateway.*"], "incident.opened", False),
        ([], "incident.opened", False),
    ],
)
def test_a_star_stands_for_all_events_of_its_kind(events: list[str], event: str, wanted: bool) -> None:
    assert wants(events, event) is wanted


def test_age_alone_is_no_reason() -> None:
    assert reason_for_all(OPENED._replace(subject=OVER, age=LATE - timedelta(seconds=1))) is None


@pytest.mark.parametrize(
    ("removed", "is_back", "why"),
    [
        (False, False, None),
        (True, True, DecisionReason.REMOVED),
        (False, True, DecisionReason.OVER_BEFORE_TOLD),
    ],
)
def test_little_speaks_against_telling_of_a_state(
    removed: bool, is_back: bool, why: DecisionReason | None
) -> None:
    assert reason_for_state(removed, is_back) is why


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        (WELL, None),
        (OVER._replace(removed=True), DecisionReason.OVER_BEFORE_TOLD),
        (SubjectState(removed=True), DecisionReason.REMOVED),
        (SubjectState(paused=True), DecisionReason.PAUSED),
        (SubjectState(alerts_enabled=False), DecisionReason.ALERTS_DISABLED),
        (QUIET, DecisionReason.MAINTENANCE),
    ],
)
def test_what_speaks_against_warning_of_an_end(subject: SubjectState, why: DecisionReason | None) -> None:
    assert reason_for_expiry(subject) is why


STATE, EXPIRING = "channel.state_changed", "channel.expiring"
PROGRAM = HERE._replace(is_for_people=False)


@pytest.mark.parametrize(
    ("event", "recipient", "why"),
    [
        (STATE, HERE, DecisionReason.NOT_WANTED),
        (STATE, HERE._replace(events=[STATE]), DecisionReason.STATE_CHANGED),
        (STATE, HERE._replace(events=[STATE], disabled=True, known=False), DecisionReason.DISABLED),
        (STATE, HERE._replace(events=[STATE], known=False), DecisionReason.UNKNOWN_KIND),
        (STATE, HERE._replace(events=[STATE], has_recipients=False), DecisionReason.NO_RECIPIENTS),
        (EXPIRING, HERE, DecisionReason.EXPIRING),
        (EXPIRING, HERE._replace(events=["incident.resolved"]), DecisionReason.NOT_WANTED),
        (EXPIRING, PROGRAM, DecisionReason.NOT_WANTED),
        (EXPIRING, PROGRAM._replace(events=[EXPIRING]), DecisionReason.EXPIRING),
    ],
)
def test_who_is_told_of_a_change(event: str, recipient: Recipient, why: DecisionReason) -> None:
    told = DecisionReason.STATE_CHANGED if event == STATE else DecisionReason.EXPIRING

    assert reason_for_change(event, recipient, told) is why
