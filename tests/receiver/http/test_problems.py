"""Errors as problem+json: what a caller can act on, and nothing from inside."""

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.ingest.queue import NotCommitted as NotCommitted
from receiver.http.problems import (
    Conflict,
    FieldProblem,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
    exception_handlers,
)


async def answer_to(error: Exception, method: str = "GET", path: str = "/") -> httpx.Response:
    async def fail(_request: Request) -> Response:
        raise error

    app = Starlette(routes=[Route("/", fail, methods=["GET"])], exception_handlers=exception_handlers)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://zapwatch") as client:
        return await client.request(method, path)


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (Unauthorized(), 401, ("WWW-Authenticate", "Bearer")),
        (Forbidden("no"), 403, None),
        (NotFound("no"), 404, None),
        (Conflict("no"), 409, None),
        (TooLarge("no"), 413, None),
        (Invalid([]), 422, None),
        (Unavailable(), 503, ("Retry-After", "2")),
        (NotCommitted(), 503, ("Retry-After", "2")),
        (ConnectionRefusedError(), 503, ("Retry-After", "2")),
        (TimeoutError(), 503, ("Retry-After", "2")),
        (asyncpg.ConnectionDoesNotExistError(), 503, ("Retry-After", "2")),
        (asyncpg.CannotConnectNowError(), 503, ("Retry-After", "2")),
        (asyncpg.AdminShutdownError(), 503, ("Retry-After", "2")),
        (asyncpg.ReadOnlySQLTransactionError(), 503, ("Retry-After", "2")),
        (asyncpg.InterfaceError("pool is closing"), 503, ("Retry-After", "2")),
        (asyncpg.DiskFullError(), 503, ("Retry-After", "2")),
        (HTTPException(418, "tea", {"X": "y"}), 418, ("X", "y")),
    ],
)
async def test_error_is_a_problem_with_its_status(
    error: Exception, status: int, header: tuple[str, str] | None
) -> None:
    answer = await answer_to(error)

    problem = answer.json()
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert problem["status"] == status
    assert header is None or answer.headers[header[0]] == header[1]


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("s3cret"), asyncpg.UniqueViolationError("s3cret"), asyncpg.DataError("s3cret")],
)
async def test_unexpected_error_is_a_500_that_tells_nothing(error: Exception) -> None:
    answer = await answer_to(error)

    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "s3cret" not in answer.text


async def test_argument_that_a_statement_does_not_take_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await answer_to(asyncpg.DataError("s3cret"))

    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert record.exc_info is not None
    assert "s3cret" not in record.getMessage()


async def test_path_and_method_that_do_not_exist_are_problems_too() -> None:
    no_path = await answer_to(ValueError(), path="/nothing")
    no_method = await answer_to(ValueError(), method="PUT")

    assert (no_path.status_code, no_method.status_code) == (404, 405)
    assert "GET" in no_method.headers["Allow"]
    for answer in (no_path, no_method):
        assert answer.headers["Content-Type"] == "application/problem+json"


async def test_invalid_carries_each_field_and_conflict_the_existing_id() -> None:
    invalid = await answer_to(Invalid([FieldProblem("/a/b", "Must be c.")]))

    assert invalid.json()["errors"] == [{"pointer": "/a/b", "detail": "Must be c."}]
