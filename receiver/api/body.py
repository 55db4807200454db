"""Request bodies: read within a limit, parsed, checked field by field; all bad fields are named at once."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, NoReturn, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from starlette.requests import Request

from receiver.http.problems import FieldProblem, Invalid, TooLarge

MAX_BYTES: Final = 1024 * 1024
# Deeper than any settings; far below what a parser or PostgreSQL takes.
MAX_DEPTH: Final = 32

Model = TypeVar("Model", bound="Body")


def _time(value: object) -> datetime:
    try:
        # Python reads more than RFC 3339: weeks, dates alone, times without an offset.
        if isinstance(value, str) and re.fullmatch(
            r"[0-9]{4}-\d\d-\d\d[Tt ].{5,}([Zz]|[+-]\d\d:\d\d)", value
        ):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError(
        "time", "Must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z"
    )


Id = Annotated[UUID, Field(strict=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Key = Annotated[str, Field(min_length=1, max_length=4096)]
Address = Annotated[str, Field(max_length=2048)]
Time = Annotated[datetime, BeforeValidator(_time)]


class Body(BaseModel):
    """A body takes exactly its fields, each of exactly its type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Metadata(BaseModel):
    """The tenant's settings of a channel; keys that are not ours are kept as they come, null removes one."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    heartbeat_threshold_minutes: Annotated[float, Field(ge=0, le=1440)] | None = None
    alerts_enabled: bool | None = None
    auto_recovery: bool | None = None
    terminal_waits: bool | None = None

    def given(self) -> dict[str, object]:
        """Return what was sent and nothing else."""
        return self.model_dump(exclude_unset=True)


async def read(request: Request, model: type[Model], *, optional: bool = False) -> Model:
    """Return the body as this model, or raise `Invalid` or `TooLarge`; an `optional` one may be missing."""
    body = await _bytes_of(request)
    value = {} if optional and not body else _parse(body)
    if not isinstance(value, dict):
        raise Invalid([FieldProblem("", "The body must be a JSON object.")])
    problems = list(_unstorable(value))
    if problems:
        raise Invalid(problems)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Invalid([_problem(item) for item in error.errors(include_url=False)]) from None


def pointer(*path: object) -> str:
    """Return the JSON pointer (RFC 6901) to a field."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def storable(text: str) -> bool:
    """Whether PostgreSQL and UTF-8 can hold this text: no NUL, no half of a surrogate pair."""
    return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)


async def _bytes_of(request: Request) -> bytes:
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length[:18]) > MAX_BYTES:
        raise TooLarge(f"A body may have {MAX_BYTES} bytes.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise TooLarge(f"A body may have {MAX_BYTES} bytes.")
    return bytes(body)


def _parse(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # Only Python's parser reads half a surrogate pair, so that the field that has it can be named.
    try:
        return json.loads(body, parse_constant=_refuse, parse_float=_finite, parse_int=_finite)
    except (ValueError, RecursionError):
        raise Invalid([FieldProblem("", "The body is not JSON.")]) from None


def _refuse(_constant: str) -> NoReturn:
    raise ValueError("not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("too large")
    return number


def _unstorable(body: Mapping[str, object]) -> Iterator[FieldProblem]:
    """Yield the fields that no row can hold; a list, for a body may be deeper than the stack."""
    todo: list[tuple[tuple[object, ...], object]] = [((), body)]
    while todo:
        path, value = todo.pop()
        if len(path) > MAX_DEPTH:
            yield FieldProblem(pointer(path[0]), f"May be nested {MAX_DEPTH} deep.")
            return
        match value:
            case str() if not storable(value):
                yield FieldProblem(pointer(*path), "Text can't hold NUL or half of a surrogate pair.")
            case list():
                todo.extend(((*path, index), item) for index, item in enumerate(value))
            case dict() if all(storable(name) for name in value):
                todo.extend(((*path, name), item) for name, item in value.items())
            case dict():
                yield FieldProblem(pointer(*path), "A name can't hold NUL or half of a surrogate pair.")


def _problem(item: ErrorDetails) -> FieldProblem:
    detail = "There is no such field." if item["type"] == "extra_forbidden" else item["msg"] + "."
    return FieldProblem(pointer(*item["loc"]), detail)
