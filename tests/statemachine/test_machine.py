"""The table is whole, and the library that declares it agrees with it."""

from itertools import product

import pytest

from statemachine.diagram import main, page
from statemachine.machine import IGNORED, TABLE, TRANSITIONS, Ignored, TableError, compile_table, declare
from statemachine.model import State, Trigger

PAIRS = list(product(State, Trigger))


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_each_state_and_trigger_is_decided(state: State, trigger: Trigger) -> None:
    decision = TABLE[state, trigger]

    assert isinstance(decision, State) or decision.because


@pytest.mark.parametrize(("state", "trigger"), PAIRS)
def test_transitions_and_the_table_agree(state: State, trigger: Trigger) -> None:
    machine = declare()
    machine.set_state(state.value)

    machine.trigger(trigger.value)

    decision = TABLE[state, trigger]
    assert machine.state == (decision if isinstance(decision, State) else state)


def test_terminal_is_left_only_by_a_new_scan() -> None:
    ways_out = {t for t in Trigger if isinstance(TABLE[State.UNPAIRED, t], State)}

    assert ways_out == {Trigger.OPENED, Trigger.QR_ISSUED}


def test_an_undecided_pair_is_refused() -> None:
    fewer = {pair: ignored for pair, ignored in IGNORED.items() if pair != (State.OPEN, Trigger.OPENED)}

    with pytest.raises(TableError, match="undecided: opened from open"):
        compile_table(declare(), fewer)


def test_a_double_edge_is_refused() -> None:
    with pytest.raises(TableError, match="two transitions for opened"):
        compile_table(declare([*TRANSITIONS, ["opened", "error", "connecting"]]), IGNORED)


def test_an_edge_that_is_also_ignored_is_refused() -> None:
    twice = {**IGNORED, (State.OPEN, Trigger.DROPPED): Ignored("no")}

    with pytest.raises(TableError, match="both a transition and ignored"):
        compile_table(declare(), twice)


def test_an_unknown_trigger_is_refused() -> None:
    with pytest.raises(TableError, match="unknown trigger exploded"):
        compile_table(declare([*TRANSITIONS, ["exploded", "open", "error"]]), IGNORED)


def test_a_condition_is_refused() -> None:
    machine = declare()
    machine.add_transition("opened", "open", "error", conditions=lambda: True)

    with pytest.raises(TableError, match="has a condition"):
        compile_table(machine, IGNORED)


def test_the_drawn_page_names_every_edge_and_every_ignored_trigger() -> None:
    drawn = page()

    assert "unpaired --> open: opened" in drawn
    assert all(ignored.because in drawn for ignored in IGNORED.values())


def test_a_stale_page_fails_the_check(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("docs") / "machine.md"
    file.write_text(page())
    fresh = main(["--check", str(file)])

    file.write_text(page() + "more")

    assert (fresh, main(["--check", str(file)])) == (0, 1)
