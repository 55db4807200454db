"""JSON columns, read and written as text so that a connection's codecs don't matter, and merge patches."""

import json
import re
from collections.abc import Mapping
from typing import Final, overload

import orjson

DEEPEST: Final = 200
"""Levels that are read: orjson reads 1,024 and writes only 254."""


def load(text: str | bytes | None) -> object:
    """Return what a JSON column holds; None when it is null or beyond what can be read.

    Other applications write these columns too: jsonb takes numbers and depths that JSON parsers refuse.
    """
    if text is None or _is_too_deep(text):
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _load_leniently(text)


def dump(value: object) -> str:
    """Return the JSON text of a value."""
    return orjson.dumps(value).decode()


@overload
def merge_patch(target: object, patch: Mapping[str, object]) -> dict[str, object]: ...
@overload
def merge_patch(target: object, patch: object) -> object: ...
def merge_patch(target: object, patch: object) -> object:
    """Return the target with a JSON merge patch applied (RFC 7396): null removes, objects merge."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _is_too_deep(text: str | bytes) -> bool:
    """Return whether a valid document nests deeper than `DEEPEST`, without following its nesting."""
    text = text if isinstance(text, str) else text.decode()
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket, 0)
        if depth > DEEPEST:
            return True
    return False


def _load_leniently(text: str | bytes) -> object:
    try:
        return json.loads(text, parse_int=_int)
    except (ValueError, RecursionError):
        return None


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) < 18 else float(digits)
