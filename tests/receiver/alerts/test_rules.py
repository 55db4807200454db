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
    of_all,
    of_change,
    of_expiry,
    of_one,
    of_reminder,
    of_state,
    wants,
)

WELL = SubjectState()
OVER = SubjectState(is_over=True)
QUIET = SubjectState(quiet_until=datetime(2026, 1, 1, tzinfo=UTC))
OPENED = AlertFacts("incident.opened", False, WELL)
RESOLVED = AlertFacts("incident.resolved", True, OVER)
HERE = Recipient()


@pytest.mark.parametrize(
    ("news", "why"),
    [
        (OPENED, None),
        (RESOLVED, None),
        (OPENED._replace(standing=SubjectState(removed=True, paused=True)), DecisionReason.REMOVED),
        (OPENED._replace(standing=SubjectState(paused=True, alerts_enabled=False)), DecisionReason.PAUSED),
        (OPENED._replace(standing=QUIET._replace(alerts_enabled=False)), DecisionReason.ALERTS_DISABLED),
        (OPENED._replace(standing=QUIET), DecisionReason.MAINTENANCE),
        (RESOLVED._replace(standing=QUIET._replace(is_over=True)), DecisionReason.MAINTENANCE),
        (OPENED._replace(standing=OVER), None),
        (OPENED._replace(standing=OVER, was_held=True), DecisionReason.OVER_BEFORE_TOLD),
        (OPENED._replace(was_held=True), None),
        (OPENED._replace(standing=OVER, waited=2 * LATE), DecisionReason.OVER_BEFORE_TOLD),
        (OPENED._replace(waited=2 * LATE), None),
        (RESOLVED._replace(waited=2 * LATE, was_held=True), None),
    ],
)
def test_what_speaks_against_telling_anybody(news: AlertFacts, why: DecisionReason | None) -> None:
    assert of_all(news) is why


@pytest.mark.parametrize(
    ("news", "place", "opening", "why"),
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
        (RESOLVED, HERE, OpeningDelivery.TOLD, DecisionReason.RESOLVED),
        (RESOLVED, HERE, OpeningDelivery.LEFT, DecisionReason.RESOLVED),
        (RESOLVED, HERE, OpeningDelivery.WAITING, DecisionReason.OVER_BEFORE_TOLD),
        (RESOLVED, HERE, OpeningDelivery.NONE, DecisionReason.OPENING_NOT_TOLD),
        (
            RESOLVED,
            HERE._replace(events=["incident.opened"]),
            OpeningDelivery.TOLD,
            DecisionReason.NOT_WANTED,
        ),
        (
            RESOLVED,
            HERE._replace(events=["incident.opened"]),
            OpeningDelivery.WAITING,
            DecisionReason.OVER_BEFORE_TOLD,
        ),
        (RESOLVED, HERE._replace(disabled=True), OpeningDelivery.TOLD, DecisionReason.DISABLED),
        (RESOLVED, HERE._replace(has_recipients=False), OpeningDelivery.TOLD, DecisionReason.NO_RECIPIENTS),
    ],
)
def test_why_a_destination_is_told_or_not(
    news: AlertFacts, place: Recipient, opening: OpeningDelivery, why: DecisionReason
) -> None:
    assert of_one(news, place, opening) is why


@pytest.mark.parametrize(
    ("standing", "place", "opening", "acknowledged", "why"),
    [
        (WELL, HERE, OpeningDelivery.TOLD, False, DecisionReason.REMINDER),
        (OVER, HERE, OpeningDelivery.TOLD, True, DecisionReason.OVER_BEFORE_TOLD),
        (WELL, HERE, OpeningDelivery.TOLD, True, DecisionReason.ACKNOWLEDGED),
        (WELL, HERE._replace(disabled=True), OpeningDelivery.TOLD, False, DecisionReason.DISABLED),
        (WELL, HERE._replace(known=False), OpeningDelivery.TOLD, False, DecisionReason.UNKNOWN_KIND),
        (WELL, HERE._replace(reminds=False), OpeningDelivery.TOLD, False, DecisionReason.NO_REMINDERS),
        (WELL, HERE, OpeningDelivery.LEFT, False, DecisionReason.NOT_YET_TOLD),
        (WELL, HERE, OpeningDelivery.NONE, False, DecisionReason.OPENING_NOT_TOLD),
        (
            WELL,
            HERE._replace(has_recipients=False),
            OpeningDelivery.TOLD,
            False,
            DecisionReason.NO_RECIPIENTS,
        ),
        (QUIET, HERE, OpeningDelivery.TOLD, False, DecisionReason.MAINTENANCE),
        (SubjectState(paused=True), HERE, OpeningDelivery.TOLD, False, DecisionReason.PAUSED),
        (
            SubjectState(alerts_enabled=False),
            HERE,
            OpeningDelivery.TOLD,
            False,
            DecisionReason.ALERTS_DISABLED,
        ),
        (SubjectState(removed=True), HERE, OpeningDelivery.TOLD, False, DecisionReason.REMOVED),
    ],
)
def test_why_a_destination_is_reminded_or_not(
    standing: SubjectState,
    place: Recipient,
    opening: OpeningDelivery,
    acknowledged: bool,
    why: DecisionReason,
) -> None:
    asked = place._replace(reminds=why is not DecisionReason.NO_REMINDERS)

    assert of_reminder(standing, asked, opening, acknowledged) is why


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
    assert of_all(OPENED._replace(standing=OVER, waited=LATE - timedelta(seconds=1))) is None


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
    assert of_state(removed, is_back) is why


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (WELL, None),
        (OVER._replace(removed=True), DecisionReason.OVER_BEFORE_TOLD),
        (SubjectState(removed=True), DecisionReason.REMOVED),
        (SubjectState(paused=True), DecisionReason.PAUSED),
        (SubjectState(alerts_enabled=False), DecisionReason.ALERTS_DISABLED),
        (QUIET, DecisionReason.MAINTENANCE),
    ],
)
def test_what_speaks_against_warning_of_an_end(standing: SubjectState, why: DecisionReason | None) -> None:
    assert of_expiry(standing) is why


STATE, EXPIRING = "channel.state_changed", "channel.expiring"
PROGRAM = HERE._replace(is_for_people=False)


@pytest.mark.parametrize(
    ("event", "place", "why"),
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
def test_who_is_told_of_a_change(event: str, place: Recipient, why: DecisionReason) -> None:
    told = DecisionReason.STATE_CHANGED if event == STATE else DecisionReason.EXPIRING

    assert of_change(event, place, told) is why
