"""Draws the compiled table as the page `docs/channel-machine.md`; `--check FILE` fails when FILE is stale."""

import sys
from collections import defaultdict
from collections.abc import Iterator

from statemachine.machine import TABLE
from statemachine.model import State

HEAD = """# The channel's machine

Drawn from the table in `statemachine/machine.py` by `make docs`; `make check` fails when it is stale.
A trigger that is not drawn is ignored in that state, for the reason given below.

The world sees `disconnected` for both of its children: **dropped** (the session still exists) and
**unpaired** (only a new scan brings it back).
"""


def diagram() -> Iterator[str]:
    """Yield the lines of a Mermaid state diagram: one arrow for each pair of states."""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    [*] --> unknown"
    yield '    state "disconnected" as disconnected {'
    yield "        dropped"
    yield "        unpaired"
    yield "    }"
    arrows: defaultdict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, trigger), decision in TABLE.items():
        if isinstance(decision, State):
            arrows[state, decision].append(trigger.value)
    for (source, target), triggers in sorted(arrows.items()):
        yield f"    {_node(source)} --> {_node(target)}: {', '.join(sorted(triggers))}"
    yield "```"


def ignored() -> Iterator[str]:
    """Yield the lines of a table of the ignored triggers, with the reason."""
    yield "| state | ignored trigger | because | reason shown |"
    yield "|---|---|---|---|"
    for (state, trigger), decision in sorted(TABLE.items(), key=lambda item: item[0]):
        if not isinstance(decision, State):
            yield f"| {state} | {trigger} | {decision.because} | {decision.keep.value} |"


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *diagram(), "", "## Ignored triggers", "", *ignored(), ""])


def _node(state: State) -> str:
    return state.value.rpartition("/")[2]


def main(arguments: list[str]) -> int:
    """Print the page, or compare it with a file: 0 when equal, 1 when stale."""
    if not arguments:
        print(page(), end="")
        return 0
    with open(arguments[-1], encoding="utf-8") as file:
        fresh = file.read() == page()
    if not fresh:
        print(f"{arguments[-1]} is stale: run `make docs`", file=sys.stderr)
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
