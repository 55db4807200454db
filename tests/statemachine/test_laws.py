"""The laws of evidence, for any sequence: order, repetition and batching have no meaning."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations, product

from hypothesis import given
from hypothesis import strategies as st

from statemachine.evidence import advance, merge, silence, state_of
from statemachine.model import Channel, Evidence, Reason, Rules, State, Status, Trigger
from statemachine.signals import Answered, Deadline, Heard, Signal
from statemachine.step import fold, step

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RULES = Rules(stale_after=timedelta(days=9), retry_after=SECOND)
WEBHOOKS: list[tuple[Trigger, Reason | None, int | None]] = [
    (Trigger.OPENED, None, 200),
    (Trigger.CONNECTING, Reason.CONNECTING, 200),
    (Trigger.CONNECTING, Reason.RESTART_REQUIRED, 515),
    (Trigger.QR_ISSUED, Reason.QR_SHOWN, None),
    (Trigger.DROPPED, Reason.CONNECTION_LOST, 408),
    (Trigger.DROPPED, Reason.CONNECTION_CLOSED, 428),
    (Trigger.UNPAIRED, Reason.LOGGED_OUT, 401),
    (Trigger.UNPAIRED, Reason.LOGGED_OUT, None),
    (Trigger.UNPAIRED, Reason.LOGGED_OUT_BY_API, 401),
    (Trigger.UNPAIRED, Reason.QR_LIMIT, 428),
]
ANSWERS: list[tuple[Trigger, Reason | None]] = [
    (Trigger.OPENED, None),
    (Trigger.CONNECTING, Reason.CONNECTING),
    (Trigger.DROPPED, Reason.DISCONNECTED),
    (Trigger.SESSION_MISSING, Reason.SESSION_MISSING),
    (Trigger.UNREACHABLE, Reason.UNREACHABLE),
    (Trigger.UNAUTHORIZED, Reason.UNAUTHORIZED),
]

Told = tuple[Trigger, Reason | None, int | None]


def heard(told: Told, emitted: int, received: int) -> Heard:
    """A webhook emitted and received so many seconds after T0."""
    at = T0 + emitted * SECOND
    return Heard(T0 + received * SECOND, at, at, *told)


def answered(answer: tuple[Trigger, Reason | None], version: int, began: int) -> Answered:
    """A probe's answer that needs no second one, a second after it began."""
    at = T0 + began * SECOND
    return Answered(at + SECOND, at, version, *answer, certain=True)


def settled(channel: Channel, now: datetime) -> Channel:
    """The channel after every deadline has come, the last one days later."""
    for _ in range(8):
        if channel.due_at is None:
            break
        now = max(now, channel.due_at)
        channel, _ = step(channel, Deadline(now))
    return channel


def essence(channel: Channel) -> tuple[State, Reason | None, bool, bool]:
    """What the laws speak of."""
    return channel.state, channel.status.reason, channel.incident is not None, channel.has_been_open


@st.composite
def shuffled_twice(draw: st.DrawFn) -> tuple[list[Signal], list[Signal]]:
    """The same webhooks with distinct times in two orders, doubled at will, with probes between stretches."""
    stretches = draw(st.lists(st.lists(st.sampled_from(WEBHOOKS), max_size=6), min_size=1, max_size=3))
    one: list[Signal] = []
    other: list[Signal] = []
    clock = 0
    for told in stretches:
        # Emitted 10 s apart, and received within the stretch: in two orders, some twice.
        emitted = [(kind, clock + 10 * number) for number, kind in enumerate(told)]
        arrivals = draw(st.permutations(emitted))
        arrivals += draw(st.lists(st.sampled_from(emitted), max_size=3)) if emitted else []
        clock += 10 * len(told) + 20
        for signals, order in ((one, emitted), (other, arrivals)):
            seen: set[int] = set()
            for number, (kind, at) in enumerate(order):
                fresh = at not in seen
                seen.add(at)
                signals.append(heard(kind, at, clock + number)._replace(fresh=fresh))
        clock += 100
        probe = draw(st.none() | st.sampled_from(ANSWERS))
        if probe is not None:
            one.append(answered(probe, -1, clock))
            other.append(answered(probe, -1, clock))
        clock += 100
    return one, other


def run(signals: Iterable[Signal], rules: Rules = RULES) -> Channel:
    """A new channel after these signals; probes began at the version of their moment."""
    channel = Channel(rules=rules)
    for signal in signals:
        current = replace(signal, version=channel.version) if isinstance(signal, Answered) else signal
        channel, _ = step(channel, current)
    return channel


@given(shuffled_twice())
def test_order_and_repetition_have_no_meaning(sequences: tuple[list[Signal], list[Signal]]) -> None:
    in_order, shuffled = sequences
    end = T0 + timedelta(days=1)

    assert essence(settled(run(in_order), end)) == essence(settled(run(shuffled), end))


@given(shuffled_twice(), st.integers(min_value=0, max_value=30))
def test_splitting_a_batch_has_no_meaning(sequences: tuple[list[Signal], list[Signal]], cut: int) -> None:
    signals = [("a", signal) for signal in sequences[1]]
    start = {"a": Channel(rules=RULES)}

    whole, effects = fold(start, signals)
    half, first = fold(start, signals[:cut])
    rest, second = fold(half, signals[cut:])

    assert rest == whole
    assert first + second == effects


@given(st.lists(st.tuples(st.sampled_from(WEBHOOKS), st.integers(0, 50)), max_size=8))
def test_merging_twice_changes_nothing(events: list[tuple[Told, int]]) -> None:
    evidence = Evidence()
    for number, (told, at) in enumerate(events):
        evidence = merge(evidence, heard(told, at, number))
    again = evidence
    for number, (told, at) in enumerate(events):
        again = merge(again, heard(told, at, number))

    assert set(again.witnesses) == set(evidence.witnesses)


def in_time_order(base: State, events: Sequence[Trigger]) -> State:
    """The state that a perfect witness would have seen."""
    standing = Status(base)
    for trigger in events:
        standing = advance(standing, trigger, None, None)
    return standing.state


def test_newest_per_trigger_is_enough_for_every_order_of_up_to_four_events() -> None:
    kinds = [Trigger.OPENED, Trigger.CONNECTING, Trigger.QR_ISSUED, Trigger.DROPPED, Trigger.UNPAIRED]
    wrong = []
    for length in range(5):
        for events in product(kinds, repeat=length):
            truth = in_time_order(State.OPEN, events)
            for order in permutations(range(length)):
                evidence = Evidence(Status(State.OPEN))
                for received, number in enumerate(order):
                    evidence = merge(evidence, heard((events[number], None, None), number, 100 + received))
                if state_of(evidence).state is not truth:
                    wrong.append((events, order))

    assert wrong == []


def with_silence(place: int, events: Sequence[Trigger], order: Sequence[int], arrivals: int) -> Status:
    """The status after events of 10 s apart, and a verdict on the gateway that was silent since `place`.

    The verdict is given after so many arrivals; the events arrive in this order, after all were emitted.
    """
    since = T0 + (10 * place - 5) * SECOND
    evidence = Evidence(Status(State.OPEN))
    for received, number in enumerate((*order, None)):
        if received == arrivals:
            evidence = silence(evidence, Reason.GATEWAY_UNREACHABLE, since)
        if number is not None:
            evidence = merge(evidence, heard((events[number], None, None), 10 * number, 100 + received))
    return state_of(evidence)


def test_verdict_on_the_gateway_stands_where_its_silence_began_for_every_order_of_up_to_four_events() -> None:
    kinds = [Trigger.OPENED, Trigger.CONNECTING, Trigger.QR_ISSUED, Trigger.DROPPED, Trigger.UNPAIRED]
    wrong = []
    for length in range(5):
        for events in product(kinds, repeat=length):
            for place in range(length + 1):
                truth = in_time_order(State.OPEN, [*events[:place], Trigger.UNREACHABLE, *events[place:]])
                for order in permutations(range(length)):
                    for arrivals in {0, length}:
                        if with_silence(place, events, order, arrivals).state is not truth:
                            wrong.append((events, place, order, arrivals))

    assert wrong == []


@given(st.lists(st.sampled_from([w for w in WEBHOOKS if w[0] is not Trigger.OPENED]), max_size=5))
def test_without_opened_an_open_channel_that_left_open_has_one_incident(events: list[Told]) -> None:
    signals = [heard(WEBHOOKS[0], 0, 0), *(heard(told, n, n) for n, told in enumerate(events, start=1))]

    channel = settled(run(signals), T0)

    assert (channel.incident is not None) == (channel.state is not State.OPEN)
