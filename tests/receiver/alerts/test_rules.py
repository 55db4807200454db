"""Every branch of deciding, by its named reason."""

from datetime import UTC, datetime, timedelta

import pytest

from receiver.alerts.rules import (
    LATE,
    REMINDED_LATER,
    News,
    Opening,
    Place,
    Standing,
    Why,
    of_all,
    of_change,
    of_expiry,
    of_one,
    of_reminder,
    of_state,
    wants,
)

WELL = Standing()
OVER = Standing(is_over=True)
QUIET = Standing(quiet_until=datetime(2026, 1, 1, tzinfo=UTC))
OPENED = News("incident.opened", False, WELL)
RESOLVED = News("incident.resolved", True, OVER)
HERE = Place()


@pytest.mark.parametrize(
    ("news", "why"),
    [
        (OPENED, None),
        (RESOLVED, None),
        (OPENED._replace(standing=Standing(removed=True, paused=True)), Why.REMOVED),
        (OPENED._replace(standing=Standing(paused=True, alerts_enabled=False)), Why.PAUSED),
        (OPENED._replace(standing=QUIET._replace(alerts_enabled=False)), Why.ALERTS_DISABLED),
        (OPENED._replace(standing=QUIET), Why.MAINTENANCE),
        (RESOLVED._replace(standing=QUIET._replace(is_over=True)), Why.MAINTENANCE),
        (OPENED._replace(standing=OVER), None),
        (OPENED._replace(standing=OVER, was_held=True), Why.OVER_BEFORE_TOLD),
        (OPENED._replace(was_held=True), None),
        (OPENED._replace(standing=OVER, waited=2 * LATE), Why.OVER_BEFORE_TOLD),
        (OPENED._replace(waited=2 * LATE), None),
        (RESOLVED._replace(waited=2 * LATE, was_held=True), None),
    ],
)
def test_what_speaks_against_telling_anybody(news: News, why: Why | None) -> None:
    assert of_all(news) is why


@pytest.mark.parametrize(
    ("news", "place", "opening", "why"),
    [
        (OPENED, HERE, Opening.NONE, Why.OPENED),
        (OPENED, HERE._replace(disabled=True, known=False), Opening.NONE, Why.DISABLED),
        (OPENED, HERE._replace(known=False, events=()), Opening.NONE, Why.UNKNOWN_KIND),
        (OPENED, HERE._replace(events=["incident.resolved"]), Opening.NONE, Why.NOT_WANTED),
        (OPENED, HERE._replace(has_recipients=False), Opening.NONE, Why.NO_RECIPIENTS),
        (RESOLVED, HERE, Opening.TOLD, Why.RESOLVED),
        (RESOLVED, HERE, Opening.LEFT, Why.RESOLVED),
        (RESOLVED, HERE, Opening.WAITING, Why.OVER_BEFORE_TOLD),
        (RESOLVED, HERE, Opening.NONE, Why.OPENING_NOT_TOLD),
        (RESOLVED, HERE._replace(events=["incident.opened"]), Opening.TOLD, Why.NOT_WANTED),
        (RESOLVED, HERE._replace(events=["incident.opened"]), Opening.WAITING, Why.OVER_BEFORE_TOLD),
        (RESOLVED, HERE._replace(disabled=True), Opening.TOLD, Why.DISABLED),
        (RESOLVED, HERE._replace(has_recipients=False), Opening.TOLD, Why.NO_RECIPIENTS),
    ],
)
def test_why_a_destination_is_told_or_not(news: News, place: Place, opening: Opening, why: Why) -> None:
    assert of_one(news, place, opening) is why


@pytest.mark.parametrize(
    ("standing", "place", "opening", "acknowledged", "why"),
    [
        (WELL, HERE, Opening.TOLD, False, Why.REMINDER),
        (OVER, HERE, Opening.TOLD, True, Why.OVER_BEFORE_TOLD),
        (WELL, HERE, Opening.TOLD, True, Why.ACKNOWLEDGED),
        (WELL, HERE._replace(disabled=True), Opening.TOLD, False, Why.DISABLED),
        (WELL, HERE._replace(known=False), Opening.TOLD, False, Why.UNKNOWN_KIND),
        (WELL, HERE._replace(reminds=False), Opening.TOLD, False, Why.NO_REMINDERS),
        (WELL, HERE, Opening.LEFT, False, Why.NOT_YET_TOLD),
        (WELL, HERE, Opening.NONE, False, Why.OPENING_NOT_TOLD),
        (WELL, HERE._replace(has_recipients=False), Opening.TOLD, False, Why.NO_RECIPIENTS),
        (QUIET, HERE, Opening.TOLD, False, Why.MAINTENANCE),
        (Standing(paused=True), HERE, Opening.TOLD, False, Why.PAUSED),
        (Standing(alerts_enabled=False), HERE, Opening.TOLD, False, Why.ALERTS_DISABLED),
        (Standing(removed=True), HERE, Opening.TOLD, False, Why.REMOVED),
    ],
)
def test_why_a_destination_is_reminded_or_not(
    standing: Standing, place: Place, opening: Opening, acknowledged: bool, why: Why
) -> None:
    asked = place._replace(reminds=why is not Why.NO_REMINDERS)

    assert of_reminder(standing, asked, opening, acknowledged) is why


def test_only_what_tells_sends_and_nothing_that_sends_waits() -> None:
    assert {why for why in Why if why.sends}.isdisjoint(REMINDED_LATER)
    assert not Why.MAINTENANCE.sends
    assert Why.OPENED.sends


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
    [(False, False, None), (True, True, Why.REMOVED), (False, True, Why.OVER_BEFORE_TOLD)],
)
def test_little_speaks_against_telling_of_a_state(removed: bool, is_back: bool, why: Why | None) -> None:
    assert of_state(removed, is_back) is why


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (WELL, None),
        (OVER._replace(removed=True), Why.OVER_BEFORE_TOLD),
        (Standing(removed=True), Why.REMOVED),
        (Standing(paused=True), Why.PAUSED),
        (Standing(alerts_enabled=False), Why.ALERTS_DISABLED),
        (QUIET, Why.MAINTENANCE),
    ],
)
def test_what_speaks_against_warning_of_an_end(standing: Standing, why: Why | None) -> None:
    assert of_expiry(standing) is why


STATE, EXPIRING = "channel.state_changed", "channel.expiring"
PROGRAM = HERE._replace(is_for_people=False)


@pytest.mark.parametrize(
    ("event", "place", "why"),
    [
        (STATE, HERE, Why.NOT_WANTED),
        (STATE, HERE._replace(events=[STATE]), Why.STATE_CHANGED),
        (STATE, HERE._replace(events=[STATE], disabled=True, known=False), Why.DISABLED),
        (STATE, HERE._replace(events=[STATE], known=False), Why.UNKNOWN_KIND),
        (STATE, HERE._replace(events=[STATE], has_recipients=False), Why.NO_RECIPIENTS),
        (EXPIRING, HERE, Why.EXPIRING),
        (EXPIRING, HERE._replace(events=["incident.resolved"]), Why.NOT_WANTED),
        (EXPIRING, PROGRAM, Why.NOT_WANTED),
        (EXPIRING, PROGRAM._replace(events=[EXPIRING]), Why.EXPIRING),
    ],
)
def test_who_is_told_of_a_change(event: str, place: Place, why: Why) -> None:
    told = Why.STATE_CHANGED if event == STATE else Why.EXPIRING

    assert of_change(event, place, told) is why
