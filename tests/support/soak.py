"""Sizes of tests that are long by nature: CI runs a short form of each, `make soak` the long one."""

import os
from typing import Final, TypeVar

Size = TypeVar("Size")

IS_SOAK: Final = bool(os.environ.get("SOAK"))


def sized(short: Size, long: Size) -> Size:
    """Return what this run is to use."""
    return long if IS_SOAK else short
