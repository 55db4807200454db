"""A gateway's process: a port, its channels, and the faults. A dialect fills in the words."""

import time
from abc import ABC, abstractmethod
from typing import ClassVar, Final, Generic, TypeVar

from starlette.types import Receive, Scope, Send

from receiver.sandbox.channel import Ordered, SandboxChannel
from receiver.sandbox.delivery import Courier
from receiver.sandbox.fault import ABOUT_A_CHANNEL, Fault
from receiver.sandbox.server import SandboxServer
from receiver.sandbox.wire import (
    HTML,
    HttpAnswer,
    Later,
    Request,
    hang,
    hang_in_body,
    is_patient,
    json_answer,
    page,
    pour,
    read,
    reply,
)

SLOW_FOR: Final = 3.0
"""Seconds until a slow answer."""

C = TypeVar("C", bound=SandboxChannel)


class Host(ABC, Generic[C]):
    """One gateway on a loopback port of its own; made by `Fleet`."""

    PREFIX: ClassVar[str] = ""
    """What the API's address ends in."""
    FLIPS: ClassVar[tuple[str, str]]
    """The two states of `Fault.FLIPPING`."""
    ERROR: ClassVar[str]
    """The message beside `"error": true`."""

    def __init__(self, courier: Courier) -> None:
        self.channels: dict[str, C] = {}
        self.most_at_once = 0
        self._at_once = 0
        self._fault: Fault | None = None
        self._courier = courier
        self._stage = courier.stage
        self._server = SandboxServer(self)
        self.url = f"http://127.0.0.1:{self._server.port}{self.PREFIX}"

    @property
    def fault(self) -> Fault | None:
        """What becomes of all its requests; a channel's own fault wins."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._fault = fault
        if fault is Fault.REFUSED:
            self._server.refuse()
        else:
            self._listen()

    async def open(self) -> None:
        """Begin to answer."""
        self._server.listen()
        await self._server.serve()

    async def close(self) -> None:
        """Cut all connections and give the port back."""
        await self._server.close()

    async def said(self) -> None:
        """Wait until every webhook emitted so far is settled."""
        for channel in list(self.channels.values()):
            await channel.said()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._respond(scope, receive, send)
        finally:
            self._at_once -= 1

    @abstractmethod
    def asked(self, request: Request) -> str | None:
        """Return the name of the channel whose state a request asks, or None."""

    @abstractmethod
    def order(self, request: Request) -> tuple[str, str] | None:
        """Return the name of the channel that a request orders something for, and what; or None."""

    @abstractmethod
    def answer(self, request: Request) -> HttpAnswer | Later:
        """Return what the gateway answers when nothing is wrong with it."""

    @abstractmethod
    def state_answer(self, name: str, word: str | None) -> HttpAnswer:
        """Return the answer to a question about a channel's state; None leaves the state out."""

    @abstractmethod
    def not_found(self, name: str) -> HttpAnswer:
        """Return the 404 of a lost instance."""

    @abstractmethod
    def no_route(self, request: Request) -> HttpAnswer:
        """Return the 404 of an unknown path."""

    @abstractmethod
    def unauthorized(self) -> HttpAnswer:
        """Return the 401."""

    @abstractmethod
    def unavailable(self) -> HttpAnswer:
        """Return the 503."""

    @abstractmethod
    def server_error(self) -> HttpAnswer:
        """Return the 500."""

    def _listen(self) -> None:
        self._server.listen()
        self._stage.spawn(self._server.serve())

    def _enter(self, channel: C) -> C:
        if channel.name in self.channels and self.channels[channel.name].exists:
            raise ValueError(f"{channel.name} is there already")
        self.channels[channel.name] = channel
        return channel

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read(scope, receive)
        name = self.asked(request)
        channel = None if name is None else self.channels.get(name)
        if channel is not None:
            channel.probed.append(time.monotonic())
        match self.fault_of(request, name, channel) or self._note_order(request):
            case None:
                await self._reply(request, send)
            case Fault.HANG:
                await hang(receive)
            case Fault.HANG_BODY:
                await hang_in_body(receive, send)
            case Fault.HUGE:
                await pour(receive, send)
            case Fault.RESET | Fault.REFUSED:
                self._server.reset(scope)
                await hang(receive)
            case Fault.SLOW:
                if await is_patient(receive, SLOW_FOR / self._stage.speed):
                    await self._reply(request, send)
            case fault:
                await reply(self._misanswer(fault, request, name or "", channel), send)

    async def _reply(self, request: Request, send: Send) -> None:
        answer = self.answer(request)
        if isinstance(answer, Later):
            await self._stage.pause(answer.seconds)
            answer = answer.answer()
        await reply(answer, send)

    def _note_order(self, request: Request) -> Fault | None:
        """Note an order, and return what becomes of it instead of what it is for."""
        ordered = self.order(request)
        channel = None if ordered is None else self.channels.get(ordered[0])
        if ordered is None or channel is None:
            return None
        channel.ordered.append(Ordered(ordered[1], time.monotonic()))
        return channel.order_fault

    def fault_of(self, request: Request, name: str | None, channel: C | None) -> Fault | None:
        """Return what becomes of a request; `name` and `channel`: whose state it asks."""
        if channel is not None and channel.fault is not None:
            return channel.fault
        return None if name is None and self._fault in ABOUT_A_CHANNEL else self._fault

    def _misanswer(self, fault: Fault, request: Request, name: str, channel: C | None) -> HttpAnswer:
        match fault:
            case Fault.NOT_FOUND:
                return self.not_found(name)
            case Fault.ROUTE_NOT_FOUND:
                return self.no_route(request)
            case Fault.HTML_NOT_FOUND:
                return page(404, f"Cannot {request.method} {request.raw_path}")
            case Fault.ERROR_200:
                return json_answer(200, {"error": True, "message": self.ERROR})
            case Fault.NO_STATE:
                return self.state_answer(name, None)
            case Fault.EMPTY_400:
                return json_answer(400, {})
            case Fault.UNAUTHORIZED:
                return self.unauthorized()
            case Fault.UNAVAILABLE:
                return self.unavailable()
            case Fault.HTML_200:
                return HttpAnswer(200, b"<html><body><h1>It works!</h1></body></html>", HTML)
            case Fault.GARBAGE:
                return HttpAnswer(200, b'\x00\xff{"instance":')
            case Fault.FLIPPING:
                return self.state_answer(name, self.FLIPS[0 if channel is None else len(channel.probed) % 2])
            case _:
                return self.server_error()
