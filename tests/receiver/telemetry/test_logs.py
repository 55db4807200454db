"""Logs: no token passes the formatter, whichever logger, message or traceback it comes by."""

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.registry.tokens import make_token
from receiver.settings import LogFormat
from receiver.telemetry.logs import AccessLog, configure, redact

TOKEN = make_token()
PHONE = "+5511999990000"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged, in text; the logging of the tests is put back afterwards."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    stream = io.StringIO()
    configure("text", logging.DEBUG, stream)
    yield stream
    root.handlers[:], level = kept
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize(
    "text",
    [
        "/webhooks/evolution_api/TOKEN",
        "/webhooks/evolution_api/TOKEN/connection-update",
        "GET //webhooks//wapi//TOKEN?x=1 HTTP/1.1",
        "/prefix/Webhooks/wapi/TOKEN",
        "http://watch.example/webhooks/wapi/TOKEN",
        "/webhooks/wapi/%7ATOKEN/x%2FTOKEN",
        "/webhooks/TOKEN",
        "zw_TOKEN",
        "Authorization: Bearer TOKEN",
        "b'authorization', b'bearer TOKEN'",
        "postgresql://zapwatch:TOKEN@db/zapwatch",
        '{"apikey": "TOKEN"}',
        "{'apikey': 'TOKEN', 'x': 1}",
        "apikey=TOKEN&x",
        'DETAIL:  Failing row contains (1, {"apikey": "x"}, TOKEN).',
        "DETAIL:  Key (phone_number, name)=(5511, TOKEN) already exists.",
        "DataError(\"invalid input for query argument $1: 'TOKEN' (an integer is required)\")",
    ],
)
def test_secret_is_taken_out_of_text(text: str) -> None:
    token = TOKEN.removeprefix("zw_") if "zw_TOKEN" in text else TOKEN

    redacted = redact(text.replace("TOKEN", token))

    assert token not in redacted
    assert token.removeprefix("zw_") not in redacted


def test_ordinary_text_stays_as_it_is() -> None:
    text = "GET /channels/1/state 200 http://127.0.0.1:8080/ 12:30:00 a@b.example"

    assert redact(text) == text


def test_provider_stays_readable() -> None:
    assert redact(f"POST /webhooks/wapi/{TOKEN}/x?y=1 204") == "POST /webhooks/wapi/…?y=1 204"


def test_traceback_and_arguments_are_redacted(stream: io.StringIO) -> None:
    try:
        raise ValueError(f"bad line: POST /webhooks/wapi/{TOKEN} HTTP/1.1")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Invalid HTTP request %s", f"/webhooks/wapi/{TOKEN}")

    assert "Invalid HTTP request /webhooks/wapi/…" in stream.getvalue()
    assert stream.getvalue().endswith("\nValueError\n")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_traceback_has_frames_and_types_and_no_word_of_an_error(
    log_format: LogFormat, stream: io.StringIO
) -> None:
    configure(log_format, logging.INFO, stream)
    try:
        raise KeyError(PHONE)
    except KeyError:
        logging.getLogger("x").exception("a loop failed")

    assert "a loop failed" in stream.getvalue()
    assert "in test_traceback_has_frames_and_types_and_no_word_of_an_error" in stream.getvalue()
    assert "KeyError" in stream.getvalue()
    assert PHONE not in stream.getvalue()


def test_traceback_that_another_handler_formatted_is_not_used_again(stream: io.StringIO) -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "a loop failed", (), None)
    record.exc_text = f"KeyError: {PHONE}"

    logging.getLogger("x").handle(record)

    assert "a loop failed" in stream.getvalue()
    assert PHONE not in stream.getvalue()


def test_warning_is_redacted(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"never sent {TOKEN}", stacklevel=1)

    assert "never sent zw_…" in stream.getvalue()


def test_json_line_has_fields_and_no_token() -> None:
    root, stream = logging.getLogger(), io.StringIO()
    kept = root.handlers[:], root.level
    configure("json", logging.INFO, stream)

    try:
        raise ValueError(TOKEN)
    except ValueError:
        logging.getLogger("x").exception(
            "Olá %s", TOKEN, extra={"path": f"/webhooks/wapi/{TOKEN}", "ms": 1.5}
        )
    finally:
        root.handlers[:], level = kept
        root.setLevel(level)
        logging.captureWarnings(False)

    line = json.loads(stream.getvalue())
    assert TOKEN not in stream.getvalue()
    assert (line["level"], line["logger"], line["message"]) == ("error", "x", "Olá zw_…")
    assert (line["path"], line["ms"]) == ("/webhooks/wapi/…", 1.5)
    assert line["at"].endswith("Z")
    assert line["exception"].endswith("\nValueError")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_record_with_wrong_arguments_loses_no_token(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str], stream: io.StringIO
) -> None:
    configure(log_format, logging.INFO, stream)

    logging.getLogger("x").info("%d", TOKEN)

    said = capsys.readouterr().err
    assert TOKEN not in stream.getvalue() + said
    assert "test_logs.py" in said


async def test_access_line_has_method_path_status_and_no_query(stream: io.StringIO) -> None:
    await _get("/channels/1%0AERROR forged?q=s3cret")

    line = next(line for line in stream.getvalue().splitlines() if "zapwatch.access" in line)
    assert "GET /channels/1?ERROR forged 404" in line
    assert "s3cret" not in stream.getvalue()


async def test_webhook_path_is_logged_without_its_token(stream: io.StringIO) -> None:
    await _get(f"/webhooks/wapi/{TOKEN}/x")

    assert "GET /webhooks/wapi/… 204" in stream.getvalue()
    assert TOKEN not in stream.getvalue()


async def test_webhooks_make_no_lines_at_the_usual_level(stream: io.StringIO) -> None:
    logging.getLogger().setLevel(logging.INFO)

    await _get(f"/webhooks/wapi/{TOKEN}")

    assert "webhooks" not in stream.getvalue()


async def test_served_by_uvicorn_broken_requests_and_crashes_log_no_token(stream: io.StringIO) -> None:
    server = uvicorn.Server(
        uvicorn.Config(_app(), port=0, log_config=None, access_log=False, log_level="debug", lifespan="off")
    )
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]

    for request in (
        f"POST /webhooks/wapi/{TOKEN} HTTP/9\r\n\r\n",
        f"GET /crash/webhooks/wapi/{TOKEN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        f"GET /webhooks/wapi/{TOKEN} x\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode())
        await reader.read()
        writer.close()
        await writer.wait_closed()
    await server.shutdown()

    assert "Exception in ASGI application" in stream.getvalue()
    assert ", in _app.<locals>.answer\n    raise RuntimeError(str(request.url))\n" in stream.getvalue()
    assert "Invalid HTTP request" in stream.getvalue()
    assert TOKEN not in stream.getvalue()


def _app() -> AccessLog:
    async def answer(request: Request) -> Response:
        if request.url.path.startswith("/crash"):
            raise RuntimeError(str(request.url))
        return Response(status_code=204)

    return AccessLog(Starlette(routes=[Route("/{path:path}", answer)]))


async def _get(path: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(_app()), base_url="http://x") as client:
        await client.get(path)
