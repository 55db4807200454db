"""JSON columns, read and written as text so that a connection's codecs don't matter, and merge patches."""

import json
from collections.abc import Mapping
from typing import Any

import orjson


def load(text: str | bytes | None) -> Any:
    """Return what a JSON column holds; None when it is null or beyond what can be read.

    Applications beside us write these columns too: jsonb takes numbers and depths that JSON parsers refuse.
    """
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _load_leniently(text)


def dump(value: object) -> str:
    """Return the JSON text of a value."""
    return orjson.dumps(value).decode()


def merge_patch(target: Any, patch: Any) -> Any:
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


def _load_leniently(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_int=_int)
    except (ValueError, RecursionError):
        return None


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) < 18 else float(digits)
