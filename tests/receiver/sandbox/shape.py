"""Documents by their keys and the keys' order, beside those of the samples."""

from pathlib import Path
from typing import Any

import orjson

SAMPLES = Path(__file__).parents[2] / "samples"


def sample(path: str) -> Any:
    """Return a sample's document."""
    return orjson.loads((SAMPLES / path).read_bytes())


def keys(value: Any) -> Any:
    """Return the keys in their order, all the way down, inside JSON in strings too; of a list the first's."""
    match value:
        case dict():
            return [(key, keys(inner)) for key, inner in value.items()]
        case list():
            return [keys(item) for item in value[:1]]
        case str() if value.startswith("{"):
            return keys(orjson.loads(value))
        case _:
            return None
