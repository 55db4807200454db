"""Formats errors as frames and types: where an error was raised, never what it says.

An error's message, its notes and local variables may hold values (keys, phone numbers, rows). A source
line is code.
"""

import linecache
import sys
from collections.abc import Iterator
from os import sep
from pathlib import Path
from traceback import walk_tb
from types import CodeType, TracebackType
from typing import Final

ROOT: Final = str(Path(__file__).parents[2])
FIRST_FRAMES: Final = 5
LAST_FRAMES: Final = 25
"""Frames that are shown of a longer traceback: its first and its last ones."""
DEPTH: Final = 5
"""How many causes, or groups within groups, are followed."""
GROUPED: Final = 10
"""Errors of a group that are shown."""

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


def format_error(error: BaseException) -> str:
    """Return frames and type of an error, of its causes and of a group's errors, in Python's own layout."""
    return "\n".join(_format(error, DEPTH))


def location_of(error: BaseException) -> str:
    """Return file and line where an error was raised, relative to the package; empty if it wasn't."""
    frames = list(walk_tb(error.__traceback__))
    if not frames:
        return ""
    frame, number = frames[-1]
    return f"{_relative(frame.f_code.co_filename)}:{number}"


def _format(error: BaseException, depth: int) -> Iterator[str]:
    is_cause = error.__cause__ is not None
    earlier = error.__cause__ if is_cause or error.__suppress_context__ else error.__context__
    if earlier is not None and depth > 0:
        yield from _format(earlier, depth - 1)
        yield from ("", _CAUSE if is_cause else _CONTEXT, "")
    yield "Traceback (most recent call last):"
    yield from _frames(error.__traceback__)
    yield _name(type(error))
    if isinstance(error, BaseExceptionGroup) and depth > 0:
        yield from _grouped(error, depth)


def _grouped(group: BaseExceptionGroup[BaseException], depth: int) -> Iterator[str]:
    in_all = len(group.exceptions)
    for number, error in enumerate(group.exceptions[:GROUPED], 1):
        yield f"  +---------------- {number} of {in_all} ----------------"
        yield from (f"  | {line}" for line in _format(error, depth - 1))


def _frames(traceback: TracebackType | None) -> Iterator[str]:
    frames = [(frame.f_code, number) for frame, number in walk_tb(traceback)]
    left_out = len(frames) - FIRST_FRAMES - LAST_FRAMES
    if left_out <= 0:
        yield from _lines(frames)
        return
    yield from _lines(frames[:FIRST_FRAMES])
    yield f"  [{left_out} more frames]"
    yield from _lines(frames[-LAST_FRAMES:])


def _lines(frames: list[tuple[CodeType, int]]) -> Iterator[str]:
    for code, number in frames:
        yield f'  File "{_relative(code.co_filename)}", line {number}, in {code.co_qualname}'
        source = linecache.getline(code.co_filename, number).strip()
        if source:
            yield f"    {source}"


def _relative(file: str) -> str:
    """Return a file's path below the folder it was imported from."""
    roots = [root for root in (ROOT, *sys.path) if root and file.startswith(root + sep)]
    return file[len(max(roots, key=len)) + 1 :] if roots else Path(file).name


def _name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
