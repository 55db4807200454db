"""Log lines on stderr, as text or JSON, with secrets redacted from every line, whichever library wrote it.

The guarantee sits in the formatter, behind all loggers, messages and tracebacks: nothing gets past it. A
traceback has no messages at all (`receiver.telemetry.tracebacks`).
"""

import asyncio
import logging
import re
import sys
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, TextIO, TypeAlias

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.settings import LogFormat
from receiver.telemetry.tracebacks import format_error

access: Final = logging.getLogger("zapwatch.access")
log: Final = logging.getLogger(__name__)

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_REMOVED: Final = "…"
_SECRETS: Final = (
    # A webhook's address up to where a path ends, in whichever case and however often its slashes repeat.
    (re.compile(r"(/+webhooks/+[^/\s?#\"']+/+)[^\s?#\"'<>]+", re.IGNORECASE), rf"\1{_REMOVED}"),
    # A reconnect link needs no login until it expires.
    (re.compile(r"(/+reconnect/+)(?!static\b)[^\s/?#\"'<>]+", re.IGNORECASE), rf"\1{_REMOVED}"),
    (re.compile(r"zw_[\w-]+", re.IGNORECASE), f"zw_{_REMOVED}"),
    (re.compile(r"\b(Bearer|Basic)\s+[^\s,\"']+", re.IGNORECASE), rf"\1 {_REMOVED}"),
    (re.compile(r"(\w://[^/\s:@]*:)[^@\s/]+@"), rf"\1{_REMOVED}@"),
    # PostgreSQL shows the whole row that a constraint refused.
    (re.compile(r"(Failing row contains \().*"), rf"\1{_REMOVED}"),
    # It shows the values that are there already or are missing, and asyncpg the argument that doesn't fit.
    (re.compile(r"(Key \([^)]*\)=\().*"), rf"\1{_REMOVED}"),
    (re.compile(r"(invalid input for query argument \$\d+: ).*", re.DOTALL), rf"\1{_REMOVED}"),
    (re.compile(r"(\bapikey\b[\"']?\s*[:=]\s*[\"']?)[^\s\"',&}]+", re.IGNORECASE), rf"\1{_REMOVED}"),
)
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def configure(log_format: LogFormat, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all logs, warnings and uvicorn's errors to stderr in this format; uvicorn's access log is off.

    Give uvicorn `log_config=None, access_log=False`, so that it leaves this as it is.
    """
    handler = Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
    # httpx logs each request with its whole address.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


def redact(text: str) -> str:
    """Return the text without tokens, keys and passwords."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class Handler(logging.StreamHandler[TextIO]):
    """A stream whose own errors are reported without the record's arguments, which aren't redacted."""

    def handleError(self, record: logging.LogRecord) -> None:
        location = f"{record.pathname}:{record.lineno}"
        sys.stderr.write(f"a log record of {location} can't be written: {sys.exc_info()[0]}\n")


def log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Log an error that no task or callback has handled; fits `loop.set_exception_handler`.

    asyncio's own handler writes the error's message, and what the task was called with.
    """
    error = context.get("exception")
    log.error("%s", context["message"], exc_info=error if isinstance(error, BaseException) else None)


class _Formatter(logging.Formatter):
    """Formats tracebacks without messages."""

    def formatException(self, ei: ExcInfo) -> str:
        return "" if ei[1] is None else format_error(ei[1])


class TextFormatter(_Formatter):
    """A line of time, level, logger and message, then the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        # Another handler's formatter may have left its traceback there, with messages.
        record.exc_text = None
        return redact(super().format(record))


class JsonFormatter(_Formatter):
    """One JSON object a line; what was passed as `extra` becomes fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        fields |= {name: _redacted(value) for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            fields["exception"] = redact(self.formatException(record.exc_info))
        return orjson.dumps(fields, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS, default=str).decode()


class AccessLog:
    """ASGI middleware: one line a request with method, path, status and milliseconds.

    Webhooks are too many for readable logs: their lines are of level debug, without the token.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        level = logging.DEBUG if _is_webhook(scope.get("path", "")) else logging.INFO
        if scope["type"] != "http" or not access.isEnabledFor(level):
            await self.app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            ms = round((time.perf_counter() - began) * 1000, 1)
            method, path = scope["method"], _printable(redact(scope["path"]))
            extra = {"method": method, "path": path, "status": status, "ms": ms}
            access.log(level, "%s %s %d %s ms", method, path, status, ms, extra=extra)


def _is_webhook(path: str) -> bool:
    return "/webhooks/" in path.lower()


def _printable(path: str) -> str:
    """Return the path on one line: a decoded path may hold line breaks, which would forge log lines."""
    return "".join(char if char.isprintable() else "?" for char in path)


def _redacted(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return redact(str(value))
