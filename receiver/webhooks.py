"""Takes gateways' webhooks: finds whose they are, has them read, and answers once they are committed.

Never 400, 403, 404, 422 or 5xx but 503 to a valid token: gateways take those for final and drop the
event. Nothing of a body is logged; what can't be applied is noted (202).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.datastructures import State as AppState
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from db.entry import Entry, Source
from db.intake import note_unknown_instance, quarantine
from db.patience import persist
from db.writer import PATIENCE, Unavailable
from receiver.auth import Target
from receiver.errors import TooLarge, Unauthorized
from receiver.errors import Unavailable as UnavailableAnswer
from receiver.providers import PROVIDERS, Provider
from receiver.providers.report import LIVE_FOR, Report, Unreadable, clean
from statemachine.model import State
from statemachine.signals import Alive

BODY_LIMIT: Final = 1024 * 1024
"""Bytes of a body that is read whole."""
GLIMPSE: Final = 64 * 1024
"""Bytes of a larger one that are looked at."""
SMALL: Final = 64 * 1024
"""Bytes of a body that is read whenever it comes."""
LARGE_AT_ONCE: Final = 64
"""Larger ones that are in memory at once; the others wait unread."""
DRAINED: Final = 160 * 1024 * 1024
"""Bytes of a larger one that are read and thrown away, so that its sender hears the answer."""

log = logging.getLogger(__name__)


async def receive(request: Request) -> Response:
    """Answer one webhook: 204 committed, 202 noted, 401 unknown token, 413, 503 send again."""
    provider = PROVIDERS.get(request.path_params["provider"])
    status = 500
    try:
        status = await _receive(request, provider)
    except (Unauthorized, TooLarge, UnavailableAnswer) as problem:
        status = problem.status
        raise
    except ClientDisconnect:
        status = 499
        return Response(status_code=400)
    except Unavailable as unavailable:
        status = 503
        raise UnavailableAnswer(str(unavailable)) from None
    except TimeoutError:
        status = 503
        raise UnavailableAnswer("The event was not stored in time; send it again.") from None
    except Exception as error:
        # Whatever it is, the gateway must keep the event; only the kind of error may be told.
        status = 503
        log.error("a webhook was not accepted: %s", type(error).__name__)
        raise UnavailableAnswer("The event was not stored; send it again.") from None
    finally:
        name = "unknown" if provider is None else provider.name
        request.app.state.metrics.webhook_answers.labels(name, str(int(status))).inc()
    return Response(status_code=status)


async def _receive(request: Request, provider: Provider | None) -> int:
    token = request.path_params["token"]
    if provider is None:
        raise Unauthorized("Nobody has this webhook address.")
    # One sender waits for the database so long in all; the arrival of its body doesn't count.
    patience, now = PATIENCE.total_seconds(), asyncio.get_running_loop().time
    began = now()
    async with asyncio.timeout(patience):
        target = await request.app.state.tokens.resolve(provider.name, token)
    patience -= now() - began
    if target is None:
        raise Unauthorized("Nobody has this webhook address.")
    received_at = datetime.now(UTC)
    stream = request.stream()
    body, whole = await _read_small(stream)
    async with nullcontext() if whole else request.app.state.large_bodies:
        if not whole:
            body, whole = await _read_on(stream, body)
        async with asyncio.timeout(patience):
            return await _note(request, provider, target, body, whole, received_at)


async def _read_small(stream: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """Return the body, or the beginning of a large one, and whether it is whole."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > SMALL:
            return b"".join(chunks), False
    return b"".join(chunks), True


async def _read_on(stream: AsyncIterator[bytes], start: bytes) -> tuple[bytes, bool]:
    """Return the body that begins so, or the beginning of one over the limit, and whether it is whole."""
    chunks, size = [start], len(start)
    async for chunk in stream:
        if size <= BODY_LIMIT:
            chunks.append(chunk)
        size += len(chunk)
        if size > DRAINED:
            break
    return b"".join(chunks), size <= BODY_LIMIT


async def _note(
    request: Request, provider: Provider, target: Target, body: bytes, whole: bool, received_at: datetime
) -> int:
    try:
        report = _parse(provider, target, body, received_at) if whole else provider.glimpse(body[:GLIMPSE])
    except Unreadable as problem:
        await _quarantine(request, target, body, str(problem), received_at)
        return 202
    if report is None:
        raise TooLarge("The body is over 1 MiB and not one that can be recognised.")
    return await _take(request, target, report, body, received_at)


def _parse(provider: Provider, target: Target, body: bytes, now: datetime) -> Report:
    try:
        return provider.parse(body, target.version, now)
    except Unreadable:
        raise
    except Exception as error:
        # A body that nobody foresaw must not cost its event; only the kind of error may be told.
        log.error("a %s webhook could not be read: %s", provider.name, type(error).__name__)
        raise Unreadable(f"unforeseen: {type(error).__name__}") from None


async def _take(request: Request, target: Target, report: Report, body: bytes, received_at: datetime) -> int:
    says_nothing = report.said is None and not report.alive
    if says_nothing and (target.kind == "channel" or report.instance is None):
        return 204
    channel_id = await _channel(request.app.state, target, report)
    if channel_id is not None:
        if not says_nothing:
            await _apply(request.app.state, target, channel_id, report, received_at)
        return 204
    if report.instance is None:
        await _quarantine(request, target, body, "no instance name", received_at)
    else:
        unknown = target.gateway_id, report.instance, received_at, report.word
        await persist(lambda: note_unknown_instance(request.app.state.pool, *unknown))
    return 202


async def _channel(app: AppState, target: Target, report: Report) -> UUID | None:
    """Return the channel that a webhook is about; None when it can't be told or isn't the token's."""
    named = report.instance if report.instance != target.instance else None
    if target.kind == "channel":
        # A channel's token speaks for no other channel that we know.
        stranger = named is not None and await app.tokens.channel_of(target.gateway_id, named) is not None
        return None if stranger else target.channel_id
    if report.instance is None:
        return None
    channel = await app.tokens.channel_of(target.gateway_id, report.instance)
    return None if channel is None else channel.channel_id


async def _apply(
    app: AppState, target: Target, channel_id: UUID, report: Report, received_at: datetime
) -> None:
    if report.said is not None:
        entry = Entry(channel_id, Source.WEBHOOK, report.name, received_at, report.said, report.key)
        await app.writer.submit([entry])
        return
    emitted_at = _emitted_at(target, report, received_at)
    if received_at - emitted_at > LIVE_FOR:
        return
    if app.writer.state_of(channel_id) is State.OPEN:
        app.freshness.note(channel_id, received_at)
    else:
        alive = Alive(received_at, emitted_at)
        await app.writer.submit([Entry(channel_id, Source.WEBHOOK, "alive", received_at, alive)])


def _emitted_at(target: Target, report: Report, received_at: datetime) -> datetime:
    """Return when live traffic was sent, by our clock; until its gateway's clock is learnt, when it came."""
    if report.at is None or target.clock.offset is None:
        return received_at
    return target.clock.read(report.at, received_at)[1]


async def _quarantine(
    request: Request, target: Target, body: bytes, problem: str, received_at: datetime
) -> None:
    app = request.app.state

    async def keep() -> None:
        async with app.pool.acquire() as connection:
            await quarantine(
                connection,
                app.vault,
                token_hash=target.token_hash,
                tenant_id=target.tenant_id,
                provider=target.provider,
                suffix=clean(request.path_params.get("suffix")),
                body=body,
                problem=problem,
                received_at=received_at,
            )

    await persist(keep)


class AnythingConvertor(PathConvertor):
    """What Starlette's `path` takes and line breaks besides: a valid token is never answered with 404."""

    regex = r"[\s\S]*"


register_url_convertor("anything", AnythingConvertor())

routes: Final = [
    Route("/webhooks/{provider}/{token}", receive, methods=["POST"]),
    Route("/webhooks/{provider}/{token}/{suffix:anything}", receive, methods=["POST"]),
]
