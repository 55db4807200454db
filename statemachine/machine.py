"""The table: which trigger leads from which state to which, and what is ignored, why.

`transitions` declares and checks it; `TABLE` is the same, compiled to one lookup. There are no
conditions and no callbacks: a condition is a trigger that a provider's parser chose, a callback is an effect.
What states and triggers mean: docs/states.md.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from transitions.extensions.nesting import HierarchicalMachine, NestedState

from statemachine.model import State, Trigger


class Keep(Enum):
    """What an ignored trigger does to the reason of the unchanged state."""

    FIRST = "the reason stays"
    BETTER = "the more specific reason stays"
    NEWEST = "the newest reason counts"


class Ignored(NamedTuple):
    """The decision that a trigger causes no transition in a state."""

    because: str
    keep: Keep = Keep.FIRST


GATEWAY_TROUBLE: Final = (Trigger.UNREACHABLE, Trigger.UNAUTHORIZED, Trigger.NOT_LOADED, Trigger.DEAF)
"""Triggers that concern the gateway or its answer, not the session."""
LOST: Final = (Trigger.UNPAIRED, Trigger.SESSION_MISSING)

STATES: Final = [
    "unknown",
    "open",
    "connecting",
    "qr_pending",
    {"name": "disconnected", "children": ["dropped", "unpaired"]},
    "error",
]

HAS_SESSION: Final = ["unknown", "open", "connecting", "qr_pending", "disconnected/dropped", "error"]

TRANSITIONS: Final[list[list[Sequence[str]]]] = [
    ["opened", ["unknown", "connecting", "qr_pending", "disconnected", "error"], "open"],
    ["connecting", ["unknown", "open", "disconnected/dropped", "error"], "connecting"],
    ["qr_issued", ["unknown", "open", "connecting", "disconnected", "error"], "qr_pending"],
    ["dropped", ["unknown", "open", "connecting", "qr_pending", "error"], "disconnected/dropped"],
    *([trigger.value, HAS_SESSION, "disconnected/unpaired"] for trigger in LOST),
    *([trigger.value, ["unknown", "open", "connecting"], "error"] for trigger in GATEWAY_TROUBLE),
]

IGNORED: Final[dict[tuple[State, Trigger], Ignored]] = {
    (State.OPEN, Trigger.OPENED): Ignored("already open"),
    (State.CONNECTING, Trigger.CONNECTING): Ignored("already connecting"),
    (State.QR_PENDING, Trigger.CONNECTING): Ignored("Evolution says connecting while it shows a QR"),
    (State.QR_PENDING, Trigger.QR_ISSUED): Ignored("the QR was renewed"),
    (State.DROPPED, Trigger.DROPPED): Ignored("already dropped"),
    (State.UNPAIRED, Trigger.CONNECTING): Ignored("a logged-out instance connects when its gateway boots"),
    (State.UNPAIRED, Trigger.DROPPED): Ignored("terminal stays terminal"),
    **{(State.UNPAIRED, trigger): Ignored("a better reason is kept", Keep.BETTER) for trigger in LOST},
    **{
        (state, trigger): Ignored("an unanswered probe says nothing about the session")
        for state in (State.QR_PENDING, State.DROPPED, State.UNPAIRED)
        for trigger in GATEWAY_TROUBLE
    },
    **{(State.ERROR, trigger): Ignored("still in error", Keep.NEWEST) for trigger in GATEWAY_TROUBLE},
}


class TableError(Exception):
    """The declared table is ambiguous, incomplete, or has an unknown name."""


class _SlashedState(NestedState):
    separator = "/"


class ChannelMachine(HierarchicalMachine):
    """The `transitions` machine that declares the table. It is drawn and checked, never run for an event."""

    state_cls = _SlashedState


def declare(transitions: Sequence[list[Sequence[str]]] = TRANSITIONS) -> ChannelMachine:
    """Return the declared machine, at `unknown`, ignoring what `IGNORED` lists."""
    return ChannelMachine(
        states=STATES,
        transitions=list(transitions),
        initial=State.UNKNOWN.value,
        auto_transitions=False,
        ignore_invalid_triggers=True,
    )


def compile_table(
    machine: ChannelMachine, ignored: dict[tuple[State, Trigger], Ignored]
) -> dict[tuple[State, Trigger], State | Ignored]:
    """Return one decision for every state and trigger, or raise `TableError` naming what is wrong."""
    table: dict[tuple[State, Trigger], State | Ignored] = {}
    for name, event in machine.events.items():
        trigger = _trigger(name)
        for declared in event.transitions.values():
            for transition in declared:
                if transition.conditions or transition.prepare or transition.before or transition.after:
                    raise TableError(f"{name} from {transition.source} has a condition or a callback")
                for state in _leaves(transition.source):
                    if (state, trigger) in table:
                        raise TableError(f"two transitions for {name} from {state}")
                    table[state, trigger] = _leaf(str(transition.dest))
    for pair, decision in ignored.items():
        if pair in table:
            raise TableError(f"{pair[1]} from {pair[0]} is both a transition and ignored")
        table[pair] = decision
    missing = [f"{t} from {s}" for s in State for t in Trigger if (s, t) not in table]
    if missing:
        raise TableError(f"undecided: {', '.join(missing)}")
    return table


def _trigger(name: str) -> Trigger:
    try:
        return Trigger(name)
    except ValueError:
        raise TableError(f"unknown trigger {name}") from None


def _leaves(name: str) -> list[State]:
    leaves = [state for state in State if state == name or state.startswith(f"{name}/")]
    if not leaves:
        raise TableError(f"unknown state {name}")
    return leaves


def _leaf(name: str) -> State:
    try:
        return State(name)
    except ValueError:
        raise TableError(f"unknown state {name}") from None


TABLE: Final = compile_table(declare(), IGNORED)
