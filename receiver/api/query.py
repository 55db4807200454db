"""Query parameters, one typed reader each, and pages: a limit in, an opaque cursor in and out."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn, TypeVar
from uuid import UUID

import orjson
from starlette.requests import Request

from receiver.api.body import pointer, storable
from receiver.http.problems import FieldProblem, Invalid

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
Item = TypeVar("Item")


class Query:
    """The query parameters of one request; an empty one counts as absent."""

    def __init__(self, request: Request) -> None:
        self._given = request.query_params

    def text(self, name: str) -> str | None:
        """Return a text of at most 200 characters."""
        value = self._given.get(name)
        if not value:
            return None
        if len(value) > 200 or not storable(value):
            _refuse(name, "Must be text of at most 200 characters.")
        return value

    def digits(self, name: str, fewest: int, most: int) -> str | None:
        """Return a number as it is written, of so many digits and nothing else."""
        value = self._given.get(name)
        if value and not re.fullmatch(rf"[0-9]{{{fewest},{most}}}", value, re.ASCII):
            _refuse(name, f"Must be {fewest} to {most} digits and nothing else.")
        return value or None

    def word(self, name: str, words: Collection[str]) -> str | None:
        """Return one of these words."""
        value = self._given.get(name)
        if value and value not in words:
            _refuse(name, f"Must be one of: {', '.join(words)}.")
        return value or None

    def words(self, name: str, words: Collection[str]) -> list[str] | None:
        """Return some of these words, one for each time that the parameter is given."""
        values = [value for value in self._given.getlist(name) if value]
        if not set(values) <= set(words):
            _refuse(name, f"Must be one of: {', '.join(words)}.")
        return values or None

    def id(self, name: str) -> UUID | None:
        """Return an id."""
        value = self._given.get(name)
        try:
            return UUID(value) if value else None
        except ValueError:
            _refuse(name, "Must be a UUID.")

    def time(self, name: str) -> datetime | None:
        """Return a time; one without offset is UTC."""
        value = self._given.get(name)
        try:
            # An unescaped + arrives as a space.
            at = datetime.fromisoformat(re.sub(r" (?=\d\d:?\d\d$)", "+", value)) if value else None
            if at is not None and at.tzinfo is None:
                at = at.replace(tzinfo=UTC)
            return None if at is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            _refuse(name, "Must be an RFC 3339 time such as 2026-01-31T12:00:00Z.")

    def days(self, name: str, default: float) -> timedelta:
        """Return a number of days, fractions allowed."""
        value = self._given.get(name) or str(default)
        if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", value, re.ASCII):
            _refuse(name, "Must be a number of days.")
        return timedelta(days=float(value))

    def limit(self) -> int:
        """Return how many items a page may have."""
        value = self._given.get("limit") or str(DEFAULT_LIMIT)
        if not re.fullmatch(r"[0-9]{1,4}", value, re.ASCII) or not 1 <= int(value) <= MAX_LIMIT:
            _refuse("limit", f"Must be a whole number from 1 to {MAX_LIMIT}.")
        return int(value)

    def after_id(self) -> UUID | None:
        """Return where the page begins in a list ordered by id."""
        return self._cursor(lambda values: _id(values[0]))

    def before_number(self) -> int | None:
        """Return where the page begins in a list ordered by number, newest first."""
        return self._cursor(lambda values: max(0, min(_whole(values[0]), 2**63 - 1)))

    def before_time(self) -> tuple[datetime, UUID] | None:
        """Return where the page begins in a list ordered by time and id, newest first."""
        return self._cursor(lambda values: (_aware(values[0]), _id(values[1])))

    def _cursor(self, read: Callable[[list[object]], Item]) -> Item | None:
        value = self._given.get("cursor")
        try:
            return read(orjson.loads(urlsafe_b64decode(value))) if value else None
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError):
            _refuse("cursor", "Must be the `next` of a page of this list.")


def require_known(request: Request, names: Collection[str], repeated: Collection[str] = ()) -> None:
    """Refuse query parameters that are not of these names, and those given twice that aren't `repeated`."""
    known = f"It has: {', '.join(names)}." if names else "It has none."
    problems = [
        FieldProblem(pointer(name), f"This operation has no such parameter. {known}")
        if name not in names
        else FieldProblem(pointer(name), f"Given twice. {known}")
        for name in dict.fromkeys(request.query_params)
        if name not in names or (name not in repeated and len(request.query_params.getlist(name)) > 1)
    ]
    if problems:
        raise Invalid(problems)


def page(
    rows: Sequence[Item], limit: int, show: Callable[[Item], object], key: Callable[[Item], list[object]]
) -> dict[str, object]:
    """Return a list's answer from up to one row more than its limit: that one says that there is more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {"items": [show(row) for row in shown], "next": _written(key(shown[-1])) if more else None}


def _id(value: object) -> UUID:
    if not isinstance(value, str):
        raise TypeError
    return UUID(value)


def _whole(value: object) -> int:
    if not isinstance(value, int | float | str):
        raise TypeError
    return int(value)


def _aware(text: object) -> datetime:
    if not isinstance(text, str):
        raise TypeError
    return datetime.fromisoformat(text).astimezone(UTC)


def _written(values: list[object]) -> str:
    return urlsafe_b64encode(orjson.dumps(values, default=str)).decode()


def _refuse(name: str, detail: str) -> NoReturn:
    raise Invalid([FieldProblem(pointer(name), detail)])
