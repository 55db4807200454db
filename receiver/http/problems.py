"""The few errors that a client can act on, and their one mapping to `application/problem+json` (RFC 9457).

Nothing from inside (SQL, addresses, stack) reaches an answer; an unexpected error is a plain 500.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from math import ceil
from typing import Final
from uuid import UUID

import asyncpg
import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from db.connection.retry import TRANSIENT
from db.ingest.queue import NotCommitted

RETRY_AFTER_SECONDS: Final = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field: a JSON pointer (`""` is the whole body) and a sentence."""

    pointer: str
    detail: str


class Problem(Exception):
    """An answer other than success; `status` and `headers` are those of the answer."""

    status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail: Final = detail
        self.extra: Final = extra


class Unauthorized(Problem):
    """No token, or an unknown one."""

    status = HTTPStatus.UNAUTHORIZED
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}

    def __init__(self, detail: str = "Send a valid token as `Authorization: Bearer TOKEN`.") -> None:
        super().__init__(detail)


class Forbidden(Problem):
    """The token is valid but limited to one tenant, and the operation is not."""

    status = HTTPStatus.FORBIDDEN


class NotFound(Problem):
    """There is no such thing, or not for this token."""

    status = HTTPStatus.NOT_FOUND


class MethodNotAllowed(Problem):
    """There is such a path, but for another method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED

    def __init__(self, allowed: str) -> None:
        super().__init__("This path doesn't take this method.")
        self.headers = {"Allow": allowed}


class Conflict(Problem):
    """It exists already; `id` names the existing one when this token may see it."""

    status = HTTPStatus.CONFLICT

    def __init__(self, detail: str, id: UUID | None = None) -> None:
        super().__init__(detail, **({} if id is None else {"id": str(id)}))


class TooMany(Problem):
    """The limit of an operation is reached; the client may try again after `again_in`."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, detail: str, again_in: timedelta) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(max(1, ceil(again_in.total_seconds())))}


class BadGateway(Problem):
    """A WhatsApp gateway didn't answer, or not as required."""

    status = HTTPStatus.BAD_GATEWAY

    def __init__(self, detail: str, again_in: int | None = None) -> None:
        super().__init__(detail)
        self.headers = {} if again_in is None else {"Retry-After": str(again_in)}


class TooLarge(Problem):
    """The body is over the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class Invalid(Problem):
    """Fields are invalid; all of them are named at once."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("Some fields are wrong.", errors=list(problems))


class Unavailable(Problem):
    """The database is away; the client should try again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: Mapping[str, str] = {"Retry-After": str(RETRY_AFTER_SECONDS)}

    def __init__(self, detail: str = "The database can't be reached; try again.") -> None:
        super().__init__(detail)


def answer(problem: Problem) -> Response:
    """Return the problem as an answer."""
    return _response(problem.status, problem.detail, problem.headers, problem.extra)


def _response(
    status: HTTPStatus, detail: str, headers: Mapping[str, str], extra: Mapping[str, object] | None = None
) -> Response:
    body = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}
    content = orjson.dumps({**body, **(extra or {})})
    return Response(content, status, dict(headers), media_type="application/problem+json")


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return answer(error)


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = {404: "There is nothing at this path.", 405: "This path doesn't take this method."}
    return _response(status, detail.get(error.status_code, error.detail), error.headers or {})


async def _on_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=HTTPStatus.REQUEST_TIMEOUT)


async def _on_database_away(_request: Request, _error: Exception) -> Response:
    return answer(Unavailable())


async def _on_wrong_argument(request: Request, error: Exception) -> Response:
    # The server logs only exceptions that reach it, and this one does not.
    log.error("a statement does not take its argument", exc_info=error)
    return await _on_unexpected(request, error)


async def _on_unexpected(_request: Request, _error: Exception) -> Response:
    return _response(
        HTTPStatus.INTERNAL_SERVER_ERROR, "Something unexpected went wrong; it is in the log.", {}
    )


# Errors that pass by themselves: the client should try again.
DATABASE_AWAY: Final[tuple[type[Exception], ...]] = (
    *TRANSIENT,
    asyncpg.InsufficientResourcesError,
    NotCommitted,
)

exception_handlers: Final[dict[type[Exception], ExceptionHandler]] = {
    Problem: _on_problem,
    HTTPException: _on_http_exception,
    # The answer is not read: the client has closed the connection, or was too slow.
    ClientDisconnect: _on_gone,
    **dict.fromkeys(DATABASE_AWAY, _on_database_away),
    # An InterfaceError too, but of our own making: an argument that doesn't fit its statement.
    asyncpg.DataError: _on_wrong_argument,
    asyncpg.exceptions._base.DataError: _on_wrong_argument,
    Exception: _on_unexpected,
}
