"""When a gateway is what is in trouble, and when it is back: a table of cases, and laws for any sequence."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.gateway import (
    FALLS,
    FIRST_GAP,
    OBJECTION,
    SILENT,
    Calm,
    Cause,
    ChannelFailures,
    Down,
    FailureStreak,
    Gateway,
    GatewayEffect,
    GatewaySnapshot,
    Health,
    Limits,
    Up,
    decide,
    failed,
    join,
    next_gap,
    streak,
)

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
LIMITS = Limits()


def at(seconds: float) -> datetime:
    """So many seconds after T0."""
    return T0 + timedelta(seconds=seconds)


def silence(
    channels: int, times: int | None = None, unavailable: int = 0, since: float = 10
) -> FailureStreak:
    """Probes of so many channels that went unanswered."""
    failing = streak(at(since), at(since + 1), range(channels), times or channels, unavailable)
    assert failing is not None
    return failing


BEFORE = streak(at(10), at(10), (7, 8, 9), 3)


def seen(
    seconds: float, answered: float | None = None, accepted: float | None = None, **more: object
) -> GatewaySnapshot:
    """A look at a gateway with a hundred channels, some seconds after T0."""
    look = GatewaySnapshot(at(seconds), None if answered is None else at(answered), watched=100)
    look = look._replace(accepted_at=None if accepted is None else at(accepted))
    return look._replace(**more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """What is seen at once of a gateway that was up, and what must come of it."""

    name: str
    look: GatewaySnapshot
    cause: Cause | None
    before: Gateway = field(default=Gateway(Health.UP, T0))


CASES = [
    Case("nothing", seen(20), None),
    Case("five channels go unanswered", seen(20, failing=silence(5)), Cause.UNREACHABLE),
    Case("four of many do", seen(20, failing=silence(4, 40)), None),
    Case("one of many does, for ever", seen(20, failing=silence(1, 1000)), None),
    Case("the only one does, three times", seen(20, failing=silence(1, 3), probed=1), Cause.UNREACHABLE),
    Case("the only one does, twice", seen(20, failing=silence(1, 2), probed=1), None),
    Case("both of two do", seen(20, failing=silence(2, 3), probed=2), Cause.UNREACHABLE),
    Case("one of two does", seen(20, failing=silence(1, 30), probed=2), None),
    Case("nobody can be asked any more", seen(20, failing=silence(1, 3), probed=0), Cause.UNREACHABLE),
    Case("five get a 503", seen(20, failing=silence(5, unavailable=5)), Cause.UNAVAILABLE),
    Case("most get a 503", seen(20, failing=silence(5, unavailable=3)), Cause.UNAVAILABLE),
    Case("some get a 503", seen(20, failing=silence(5, unavailable=2)), Cause.UNREACHABLE),
    Case(
        "an answer of before is told again",
        seen(20, answered=9, failing=silence(2)),
        Cause.UNREACHABLE,
        Gateway(Health.UP, T0, failing=BEFORE, suspected_at=at(19)),
    ),
    Case(
        "an answer has come meanwhile",
        seen(20, answered=11, failing=silence(2, since=12)),
        None,
        Gateway(Health.UP, T0, failing=BEFORE, suspected_at=at(19)),
    ),
    Case("a fifth leaves open", seen(20, left=20, left_since=at(3)), Cause.MASS_LOSS),
    Case("less than a fifth does", seen(20, left=19, left_since=at(3)), None),
    Case("five of six do", seen(20, left=5, left_since=at(3), watched=6), Cause.MASS_LOSS),
    Case("four of four do", seen(20, left=4, left_since=at(3), watched=4), None),
    Case("26 are too many of 130", seen(20, left=26, left_since=at(3), watched=130), Cause.MASS_LOSS),
    Case("26 are not of 131", seen(20, left=26, left_since=at(3), watched=131), None),
    Case("three keys are refused, twice each", seen(20, refusing=silence(3, 6)), Cause.UNAUTHORIZED),
    Case("three keys are refused, once each", seen(20, refusing=silence(3, 3)), None),
    Case("two of many keys are refused", seen(20, refusing=silence(2, 40)), None),
    Case("the only key is refused twice", seen(20, refusing=silence(1, 2), probed=1), Cause.UNAUTHORIZED),
    Case("another key is accepted", seen(20, accepted=11, refusing=silence(3, 6)), None),
    Case(
        "a channel's own key is accepted, the gateway's isn't",
        seen(20, accepted_own_at=at(19), refusing=silence(5, 10), by_gateway_key=frozenset({0, 1, 2})),
        Cause.UNAUTHORIZED,
    ),
    Case(
        "the gateway's is refused for two of three channels without another",
        seen(20, accepted_own_at=at(19), refusing=silence(5, 60), by_gateway_key=frozenset({0, 1})),
        None,
    ),
    Case(
        "the gateway's is refused for the two channels that have no other",
        seen(
            20, accepted_own_at=at(19), refusing=silence(5, 60), by_gateway_key=frozenset({0, 1}), unkeyed=2
        ),
        Cause.UNAUTHORIZED,
    ),
    Case("silence is graver", seen(20, failing=silence(5), left=20, left_since=at(3)), Cause.UNREACHABLE),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_incident_opens_on_what_proves_one_and_on_nothing_else(case: Case) -> None:
    suspected, nothing = decide(case.before, case.look._replace(left=0), LIMITS)
    before = suspected if case.look.failing or case.look.refusing else case.before
    look = case.look._replace(
        failing=None, refusing=None, answered_at=None, accepted_at=None, now=case.look.now + OBJECTION
    )

    after, effect = decide(before, look, LIMITS)

    assert nothing is None or case.look.refusing
    if case.cause is Cause.UNAUTHORIZED:
        assert Down(case.cause, at(10)) in (nothing, effect)
        assert (after.health, after.cause) == (Health.UP, case.cause)
    elif case.cause is None:
        assert (after.health, after.cause, effect) == (Health.UP, None, None)
    else:
        started_at = at(3) if case.cause is Cause.MASS_LOSS else at(10)
        health = Health.UP if case.cause is Cause.MASS_LOSS else Health.DOWN
        assert effect == Down(case.cause, started_at)
        assert (after.health, after.cause) == (health, case.cause)


def test_the_first_answer_makes_an_unknown_gateway_up() -> None:
    after, effect = decide(Gateway(), seen(5, answered=4), LIMITS)

    assert (after.health, after.since, effect) == (Health.UP, at(5), None)


SUSPECT, _ = decide(Gateway(Health.UP, T0), seen(18, failing=silence(5)), LIMITS)
DEAD, _ = decide(SUSPECT, seen(20), LIMITS)
FALLEN, _ = decide(Gateway(Health.UP, T0), seen(20, left=30, left_since=at(3)), LIMITS)


def test_only_a_gateway_that_does_not_answer_is_closed_to_questions() -> None:
    assert DEAD.try_at == at(20) + FIRST_GAP
    assert FALLEN.try_at is None


def test_one_answer_ends_silence_and_the_channels_have_time_to_settle() -> None:
    before, none = decide(DEAD, seen(30, answered=9), LIMITS)
    after, effect = decide(DEAD, seen(30, answered=29), LIMITS)

    assert (before.health, none) == (Health.DOWN, None)
    assert effect == Up()
    assert (after.health, after.since, after.cause, after.try_at) == (Health.UP, at(30), None, None)
    assert after.settles_until == at(90)


def test_our_own_line_may_be_the_fault_until_something_else_answers() -> None:
    cut, _ = decide(Gateway(Health.UP, T0), seen(18, failing=silence(5), offline=True), LIMITS)
    online, _ = decide(cut, seen(19, failing=silence(1, since=19)), LIMITS)

    assert decide(cut, seen(20), LIMITS)[1] == Down(Cause.UNREACHABLE, at(10), perhaps_offline=True)
    assert decide(online, seen(20), LIMITS)[1] == Down(Cause.UNREACHABLE, at(10))


def test_more_silence_changes_nothing() -> None:
    after, effect = decide(DEAD, seen(30, failing=silence(5, since=25)), LIMITS)

    assert (after.health, after.since, after.try_at, effect) == (Health.DOWN, at(20), DEAD.try_at, None)


def test_a_mass_loss_goes_on_while_as_many_are_away_however_long() -> None:
    _, still = decide(FALLEN, seen(4000, lost=20), LIMITS)

    assert still is None


def test_a_mass_loss_ends_when_none_is_away_any_more() -> None:
    after, effect = decide(FALLEN, seen(40, lost=0), LIMITS)

    assert (effect, after.cause, after.settles_until) == (Up(), None, at(40))
    assert (after.health, after.since) == (Health.UP, T0)


def test_a_mass_loss_of_which_a_few_stay_away_ends_when_none_has_returned_for_long() -> None:
    settling, still = decide(FALLEN, seen(40, lost=19), LIMITS)
    moved, _ = decide(settling, seen(99, lost=18), LIMITS)

    assert still is None
    assert decide(settling, seen(99, lost=19), LIMITS)[1] is None
    assert decide(settling, seen(100, lost=19), LIMITS)[1] == Up()
    assert decide(moved, seen(158, lost=18), LIMITS)[1] is None
    assert decide(moved, seen(159, lost=18), LIMITS)[1] == Up()


def test_a_mass_loss_is_not_kept_open_by_a_few_that_come_and_go() -> None:
    gateway, effects = FALLEN, []
    for second in range(40, 200, 10):
        gateway, effect = decide(gateway, seen(second, lost=18 + second // 10 % 2), LIMITS)
        effects.append(effect)

    assert Up() in effects


def test_a_refused_key_ends_when_one_is_accepted() -> None:
    noticed, _ = decide(Gateway(Health.UP, T0), seen(11, refusing=silence(3, 6)), LIMITS)
    refused, opened = decide(noticed, seen(13), LIMITS)
    _, still = decide(refused, seen(30, answered=29), LIMITS)
    after, effect = decide(refused, seen(31, answered=30, accepted=30), LIMITS)

    assert opened == Down(Cause.UNAUTHORIZED, at(10))
    assert (still, effect) == (None, Up())
    assert (after.health, after.cause) == (Health.UP, None)


def fallen_again(times: int) -> tuple[Gateway, list[GatewayEffect]]:
    """Have a gateway fall silent so many times, a minute each, every four minutes."""
    gateway, effects = Gateway(Health.UP, T0), []
    for n in range(times):
        begin = 240.0 * n
        for look in (
            seen(begin + 3, failing=silence(5, since=begin)),
            seen(begin + 6),
            seen(begin + 60, answered=begin + 59),
        ):
            gateway, effect = decide(gateway, look, LIMITS)
            effects += [effect] if effect else []
    return gateway, effects


def test_a_gateway_that_fell_three_times_keeps_its_incident_until_it_is_stable() -> None:
    gateway, effects = fallen_again(4)
    _, restless = decide(gateway, seen(1379), LIMITS)
    after, stable = decide(gateway, seen(1380), LIMITS)

    assert [type(effect) for effect in effects] == [Down, Up, Down, Up, Down, Calm, Down, Calm]
    assert [effect.flapping for effect in effects if isinstance(effect, Down)] == [False, False, True, True]
    assert (gateway.health, gateway.cause) == (Health.UP, Cause.UNREACHABLE)
    assert (restless, stable) == (None, Up())
    assert after.cause is None


def test_falls_that_are_half_an_hour_apart_are_not_flapping() -> None:
    gateway = Gateway(Health.UP, T0, falls=(at(-1795), at(-600)))
    suspected, _ = decide(gateway, seen(12, failing=silence(5)), LIMITS)

    assert decide(suspected, seen(14), LIMITS)[1] == Down(Cause.UNREACHABLE, at(10))


def test_only_witnesses_count() -> None:
    both = join(failed(1, at(3)), join(failed(2, at(5), unavailable=True), failed(2, at(7))))

    assert both is not None
    assert both.of({2}) == FailureStreak((ChannelFailures(2, at(5), at(7), 2, 1),))
    assert both.of({3}) is None


def test_a_mass_loss_whose_gateway_goes_silent_gets_a_graver_cause_and_stays_one_incident() -> None:
    suspect, _ = decide(FALLEN, seen(28, failing=silence(5, since=22), lost=30), LIMITS)

    after, effect = decide(suspect, seen(30, lost=30), LIMITS)

    assert effect == Down(Cause.UNREACHABLE, at(22))
    assert (after.since, after.cause, after.try_at) == (at(30), Cause.UNREACHABLE, at(31))


def test_trials_are_ever_farther_apart_up_to_a_bound() -> None:
    gaps = [next_gap(tries, LIMITS).total_seconds() for tries in (0, 1, 2, 5, 6, 1000)]

    assert gaps == [1, 2, 4, 32, 60, 60]


looks = st.lists(
    st.tuples(
        st.floats(0.1, 40),
        st.none() | st.floats(0, 30),
        st.none() | st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 5), st.floats(0, 30)),
        st.integers(0, 40),
        st.integers(0, 40),
        st.integers(0, 5),
        st.integers(0, 100),
    ),
    max_size=30,
)


def run(steps: list[tuple[Any, ...]]) -> list[tuple[Gateway, GatewaySnapshot, Gateway, GatewayEffect | None]]:
    """Look again and again; failures are told late, and the newest answer with every look."""
    gateway, now, told = Gateway(), T0, []
    newest: datetime | None = None
    for pause, answered, failing, left, lost, probed, watched in steps:
        now += timedelta(seconds=pause)
        new = None
        if failing is not None:
            channels, times, unavailable, ago = failing
            began = now - timedelta(seconds=ago)
            new = streak(began, began, range(channels), max(channels, times), min(unavailable, times))
        if answered is not None:
            newest = max(newest or T0 - timedelta(days=1), now - timedelta(seconds=answered))
        look = GatewaySnapshot(
            now, newest, new, probed=probed, watched=watched, left=left, left_since=now, lost=lost
        )
        after, effect = decide(gateway, look, LIMITS)
        told.append((gateway, look, after, effect))
        gateway = after
    return told


@given(looks)
def test_an_incident_opens_once_and_ends_once_and_a_gateway_is_down_exactly_while_it_is_silent(
    steps: list[tuple[Any, ...]],
) -> None:
    for before, _, after, effect in run(steps):
        match effect:
            case Down(cause):
                assert before.calm_since is not None or before.cause in (None, Cause.MASS_LOSS)
                assert after.cause is cause
            case Calm():
                assert (after.cause, len(after.falls)) == (before.cause, FALLS)
            case Up():
                assert before.cause is not None
                assert after.cause is None
            case None:
                assert before.cause is after.cause
        in_trouble = after.cause is not None and after.calm_since is None
        assert (after.health is Health.DOWN) == (in_trouble and after.cause in SILENT)
        assert (after.try_at is not None) == (after.health is Health.DOWN)


def test_silence_waits_for_an_objection() -> None:
    early, _ = decide(SUSPECT, seen(19.9), LIMITS)
    objected, effect = decide(SUSPECT, seen(20, answered=12), LIMITS)

    assert (early.health, objected.health, effect) == (Health.UP, Health.UP, None)
    assert objected.failing is None


@given(looks)
def test_nobody_is_blamed_for_silence_who_has_answered_since_it_began(
    steps: list[tuple[Any, ...]],
) -> None:
    for _, look, _, effect in run(steps):
        if isinstance(effect, Down) and effect.cause is not Cause.MASS_LOSS and look.answered_at is not None:
            assert effect.started_at > look.answered_at


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60), st.booleans()), min_size=1), st.data())
def test_failures_are_the_same_whoever_counted_them(
    probes: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(probes)))
    one, other = (
        [failed(channel, at(began), unavailable) for channel, began, unavailable in part]
        for part in (probes[:cut], probes[cut:])
    )

    apart = join(_all(one), _all(other))
    together = _all(one + other)

    assert apart is not None
    assert together is not None
    assert apart == together
    assert len(apart.channels) == len({channel for channel, *_ in probes})


def _all(failures: list[FailureStreak]) -> FailureStreak | None:
    joined = None
    for one in failures:
        joined = join(joined, one)
    return joined
