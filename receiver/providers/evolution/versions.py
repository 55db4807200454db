"""What the versions of Evolution API have in common, and what not."""

import re


def is_v1(version: str | None) -> bool:
    """Return whether a version is of the first line: flat bodies, other names."""
    return version is not None and not is_at_least(version, (2, 0))


def is_at_least(version: str | None, least: tuple[int, int]) -> bool:
    """Return whether a version is known to be this one or a later one."""
    found = re.match(r"v?(\d{1,4})\.(\d{1,4})", version or "")
    return found is not None and (int(found[1]), int(found[2])) >= least
