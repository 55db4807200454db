"""An Evolution server: its guards, its routes, and its process."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, auto
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

import orjson

from receiver.sandbox.delivery import Courier
from receiver.sandbox.evolution import rest
from receiver.sandbox.evolution.instance import Instance
from receiver.sandbox.evolution.version import Version
from receiver.sandbox.fault import Fault
from receiver.sandbox.host import Host
from receiver.sandbox.wire import HTML, HttpAnswer, Later, Request, json_answer

CONNECTING: Final = 2.0
"""Seconds that connect waits for the new socket's QR."""
Handled = TypeVar("Handled", HttpAnswer, Later, HttpAnswer | Later)
LOADING: Final = 0.3
"""Seconds after a start during which connectionState has no state (seen on 2.3.6)."""


class HostMetrics(Enum):
    """What becomes of `GET /metrics`, from 2.3.3 on."""

    OFF = auto()
    """Not switched on (PROMETHEUS_METRICS), which is the default: a path that isn't known."""
    ON = auto()
    FORBIDDEN = auto()
    """For addresses of a list only (METRICS_ALLOWED_IPS)."""
    LOCKED = auto()
    """With a login of its own only (METRICS_AUTH_REQUIRED)."""
    MISCONFIGURED = auto()
    """It wants a login, and knows none."""


class EvolutionHost(Host[Instance]):
    """One server, of one version, with its clock in one zone; made by `Fleet.evolution`."""

    FLIPS: ClassVar = ("close", "connecting")
    ERROR: ClassVar = "[object Object]"

    def __init__(
        self, courier: Courier, version: str, utc_offset: timedelta, exposes_key: bool | None
    ) -> None:
        super().__init__(courier)
        self.version = Version(version)
        self.utc_offset = utc_offset
        """How far its `date_time`, which it calls UTC, is from UTC."""
        self.exposes_key = self.version.exposes_key if exposes_key is None else exposes_key
        self.key = self._made_key()
        """The global key."""
        self.webhook: str | None = None
        """The global webhook."""
        self.metrics = HostMetrics.OFF
        self.unlisted: set[str] = set()
        """Instances that `/metrics` keeps to itself though they are loaded."""
        self.mistold: dict[str, str] = {}
        """Words that `/metrics` has for instances in place of the true ones, as another process would."""
        self.swept: list[float] = []
        """Monotonic times at which `/metrics` was asked, whatever the answer."""
        self.listed: list[float] = []
        """Monotonic times at which its instances were listed."""

    def add(self, name: str, state: str = "open", key: str | None = None) -> Instance:
        """Add an instance: open, connecting, close (logged out) or qr (shows QRs from now on)."""
        word = "connecting" if state == "qr" else state
        instance = self._enter(Instance(self._courier, self, name, key or self._made_key(), word))
        if state == "qr":
            instance.show_qr()
        return instance

    def restart(self, down: float = 0.0) -> asyncio.Task[None]:
        """Kill the process and start it again after so many seconds; webhooks under way are lost."""
        self._server.refuse()
        for instance in self.channels.values():
            instance.lose_memory()
        if down == 0 and self.fault is not Fault.REFUSED:
            self._listen()
        return self._stage.spawn(self._boot(down))

    def asked(self, request: Request) -> str | None:
        """Return the name that a connectionState is about."""
        is_it = request.method == "GET" and request.path[:2] == ("instance", "connectionState")
        return request.path[2] if is_it and len(request.path) == 3 else None

    def order(self, request: Request) -> tuple[str, str] | None:
        """Return the instance of a restart or connect; a restart by the other version's verb is none."""
        match request.method, request.path:
            case "GET", ("instance", "connect", name):
                return name, "connect"
            case verb, ("instance", "restart", name) if verb == self.version.restart_verb:
                return name, f"{verb} restart"
            case "DELETE", ("instance", ("logout" | "delete") as what, name):
                return name, what
            case _:
                return None

    def answer(self, request: Request) -> HttpAnswer | Later:
        """Return the answer: guards first, in Evolution's order (existence, then key)."""
        match request.method, request.path:
            case "GET", ():
                return json_answer(200, rest.root(self.version.text, self.url, self.version.is_v1))
            case "GET", ("metrics",):
                return self._metrics(request)
            case "GET", ("instance", "fetchInstances"):
                return self._listing(request)
            case "GET", ("instance", "connectionState", name):
                return self._guarded(request, name, lambda it: self.state_answer(name, it.state))
            case "GET", ("instance", "connect", name):
                return self._guarded(request, name, lambda it: self._connected(it, request.query))
            case verb, ("instance", "restart", name) if verb == self.version.restart_verb:
                return self._guarded(request, name, self._restarted)
            case "GET", ("webhook", "find", name):
                return self._guarded(request, name, self._found_webhook)
            case "POST", ("webhook", "set", name):
                return self._guarded(request, name, lambda it: self._set_webhook(it, request.body))
            case "POST", ("chat", "whatsappNumbers", name):
                return self._guarded(request, name, lambda it: self._looked_up(it, request.body))
            case _:
                return self.no_route(request)

    def fault_of(self, request: Request, name: str | None, channel: Instance | None) -> Fault | None:
        """Return what becomes of a request; a look-up of numbers may have a fault of its own."""
        match request.method, request.path:
            case "POST", ("chat", "whatsappNumbers", named) if named in self.channels:
                self.channels[named].looked_up.append(time.monotonic())
                return self.channels[named].lookup_fault or super().fault_of(request, name, channel)
            case "GET", ("instance", "fetchInstances"):
                self.listed.append(time.monotonic())
        return super().fault_of(request, name, channel)

    def state_answer(self, name: str, word: str | None) -> HttpAnswer:
        """Return a connectionState."""
        return json_answer(200, rest.state(name, word))

    def not_found(self, name: str) -> HttpAnswer:
        """Return the 404 of the guard."""
        return rest.failure(404, "Not Found", [f'The "{name}" instance does not exist'])

    def no_route(self, request: Request) -> HttpAnswer:
        """Return Express's 404 in Evolution's form."""
        return rest.failure(404, "Not Found", [f"Cannot {request.method} {request.raw_path}"])

    def unauthorized(self) -> HttpAnswer:
        """Return the 401, whose message is no list."""
        return rest.failure(401, "Unauthorized", "Unauthorized")

    def unavailable(self) -> HttpAnswer:
        """Return the 503 of a missing licence (2.4.0 on)."""
        login = f"{self.url}/manager/login"
        docs = "https://docs.evolutionfoundation.com.br/licensing"
        message = (
            f"This Evolution API instance is not activated. Open {login} to activate, or set "
            f"AUTHENTICATION_API_KEY in your .env with a valid licensing key. Docs: {docs}"
        )
        document = {"error": "service not activated", "code": "LICENSE_REQUIRED", "register_url": login}
        document |= {"instance_id": "11111111-2222-4333-8444-555555555555", "docs_url": docs}
        return json_answer(503, document | {"message": message})

    def server_error(self) -> HttpAnswer:
        """Return the 500 of a guard without its database."""
        message = "PrismaClientInitializationError: Can't reach database server at `postgres:5432`"
        return rest.failure(500, "Internal Server Error", [message])

    async def _boot(self, down: float) -> None:
        if down:
            await self._stage.pause(down)
            if self.fault is not Fault.REFUSED:
                self._listen()
        await self._stage.pause(LOADING)
        for instance in self.channels.values():
            if instance.exists:
                instance.boot()

    def _made_key(self) -> str:
        return str(UUID(int=self._stage.random.getrandbits(128), version=4)).upper()

    def _guarded(
        self, request: Request, name: str, handle: Callable[[Instance], Handled]
    ) -> HttpAnswer | Handled:
        instance = self.channels.get(name)
        if instance is None or not instance.exists:
            return self.not_found(name)
        if request.headers.get(b"apikey", b"").decode("latin-1") not in (self.key, instance.key):
            return self.unauthorized()
        return handle(instance)

    def _listing(self, request: Request) -> HttpAnswer:
        key = request.headers.get(b"apikey", b"").decode("latin-1")
        named = request.query.get("instanceName")
        there = [it for it in self.channels.values() if it.exists and key in (self.key, it.key)]
        if not there and key != self.key:
            return self.unauthorized()
        found = [it for it in there if named in (None, it.name)]
        if named is not None and not found:
            return rest.failure(404, "Not Found", [f'Instance "{named}" not found'])
        rows = [rest.listed(it, self.url, self.version.is_v1) for it in found]
        return json_answer(200, rows[0] if self.version.is_v1 and named is not None else rows)

    def _metrics(self, request: Request) -> HttpAnswer:
        """Return the metrics; the guards are those of 2.3.7, in its order."""
        self.swept.append(time.monotonic())
        match self.metrics if self.version.has_metrics else HostMetrics.OFF:
            case HostMetrics.OFF:
                return self.no_route(request)
            case HostMetrics.FORBIDDEN:
                return HttpAnswer(403, b"Forbidden: IP not allowed", HTML)
            case HostMetrics.LOCKED:
                return HttpAnswer(401, b"Authentication required", HTML)
            case HostMetrics.MISCONFIGURED:
                return HttpAnswer(500, b"Metrics authentication not configured", HTML)
            case HostMetrics.ON:
                told = [it for it in self.channels.values() if it.exists and it.name not in self.unlisted]
                states = {it.name: self.mistold.get(it.name, it.state) for it in told}
                return HttpAnswer(200, rest.metrics(self.version.text, self.url, states), rest.METRICS)

    def _connected(self, instance: Instance, query: dict[str, str]) -> HttpAnswer | Later:
        """Show the QR that there is; connect a closed one; an open one only says so."""
        instance.connects += 1
        if instance.state == "open":
            return self.state_answer(instance.name, "open")
        if instance.state != "close":
            return json_answer(200, rest.qr(instance))
        if not instance.is_paired:
            instance.show_qr(number=query.get("number"))
        elif not instance.is_cut:
            instance.connect()
        return Later(CONNECTING, lambda: json_answer(200, rest.qr(instance)))

    def _restarted(self, instance: Instance) -> HttpAnswer:
        word = instance.state
        if word == "close" and not self.version.is_v1:
            return json_answer(200, {"error": True, "message": self.ERROR})
        instance.restart()
        if word == "connecting" and not self.version.is_v1:
            return json_answer(200, rest.qr(instance))
        return self.state_answer(instance.name, word)

    def _looked_up(self, instance: Instance, body: bytes) -> HttpAnswer:
        """Ask WhatsApp which numbers it knows; nobody has any of them."""
        if instance.is_mute or instance.state != "open":
            return rest.connection_closed(self.version.tells_boom)
        return json_answer(200, rest.numbers(orjson.loads(body)["numbers"]))

    def _found_webhook(self, instance: Instance) -> HttpAnswer:
        return json_answer(200, rest.found_webhook(instance, self.version.is_v1))

    def _set_webhook(self, instance: Instance, body: bytes) -> HttpAnswer:
        try:
            document: dict[str, Any] = orjson.loads(body)
            wish = document if self.version.is_v1 else document["webhook"]
        except KeyError:
            return rest.failure(400, "Bad Request", [['instance requires property "webhook"']])
        except ValueError:
            return rest.failure(400, "Internal Server Error", ["Unexpected token in JSON"])
        unknown = set(wish.get("events", ())) - self.version.local_events
        if unknown:
            return rest.failure(400, "Bad Request", [[f"{', '.join(unknown)} is not one of enum values"]])
        instance.webhook = wish["url"] if wish.get("enabled", True) else None
        instance.events = wish.get("events", ())
        instance.by_events = wish.get("webhook_by_events" if self.version.is_v1 else "byEvents", False)
        instance.headers = wish.get("headers", instance.headers)
        found = rest.found_webhook(instance, self.version.is_v1)
        if self.version.is_v1:
            found = {"webhook": {"instanceName": instance.name, "webhook": found}}
        return json_answer(201, found)
