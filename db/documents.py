"""JSON columns as text, so that reading them doesn't depend on the codecs of a connection."""

import json
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


def _load_leniently(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_int=_int)
    except (ValueError, RecursionError):
        return None


def _int(digits: str) -> int | float:
    return int(digits) if len(digits) < 18 else float(digits)
