"""W-API: its unsigned webhooks, status-instance, fetch-instance and QRs: docs/provider-facts.md#wapi.

Unknown: how it retries, the body of a lost instance's 404, the order of its guards. Here it tries four times,
and a missing instance is 404 whatever the token. The names in the answers about QRs are from users' code.
"""

import time
from typing import Any, ClassVar, Final

import orjson

from receiver.sandbox.channel import SandboxChannel
from receiver.sandbox.delivery import Courier, QueuedPost, Retry
from receiver.sandbox.host import Host
from receiver.sandbox.wire import HttpAnswer, Request, json_answer, page

LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
RETRY: Final = Retry(attempts=4, timeout=30.0)
CREATED: Final = 1_769_600_860_844
ASKED: Final = ("status-instance", "fetch-instance", "restart", "qr-code", "pairing-code")
PICTURE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
"""A PNG of one pixel, where the picture of a QR would be."""
UPDATE: Final = "update-webhook-"
SLOTS: Final = {
    "webhookConnected": "connected",
    "webhookDisconnected": "disconnected",
    "webhookReceived": "received",
    "webhookStatus": "message-status",
    "webhookDelivery": "delivery",
    "webhookChatPresence": "chat-presence",
}
"""The places for addresses, by the event that goes there."""
YEAR: Final = 31_536_000_000
"""Milliseconds that an instance is paid for."""


class WapiInstance(SandboxChannel):
    """One instance; its state is open or close, of which the API says connected or not."""

    def __init__(self, courier: Courier, name: str, key: str, state: str) -> None:
        super().__init__(courier, name, key, state)
        self.phone = f"55119{self._stage.random.randrange(10**8):08}"
        self.expires: int | None = None
        """Until when it is paid for, in epoch milliseconds; None: for a year from now on."""
        self.payment_status = "PAID"
        self.shown: str | None = None
        """The state that the list shows, where that is another one than the true: panels lie."""
        self.qrs = 0
        """How often a QR or a pairing code was asked for."""
        self.restarts_needed: int | None = None
        """How many restarts bring a lost session back; None: none does."""

    @property
    def webhook(self) -> str | None:
        """Where losses are told; set, it is where everything is."""
        return self.urls["disconnected"] or None

    @webhook.setter
    def webhook(self, url: str | None) -> None:
        self.urls: dict[str, str] = dict.fromkeys(SLOTS.values(), url or "")

    def connect(self) -> None:
        """Connect, and say so."""
        self.state = "open"
        self._emit("webhookConnected", connected=True, connectedPhone=self.phone, moment=_now())

    def disconnect(self, heard: bool = True) -> None:
        """Lose the session; `heard`: with a webhook."""
        self.state = "close"
        if heard:
            self.false_disconnect()

    def lose_phone(self) -> None:
        """Connect without a phone, and say so: an incomplete session."""
        self.state = "open"
        self._emit("webhookConnected", connected=True, connectedPhone="", moment=_now())

    def restart(self) -> None:
        """Be restarted: connected again, and told, where there still is a session."""
        if self.restarts_needed is None or self.order_fault is not None:
            return
        self.restarts_needed -= 1
        if self.restarts_needed <= 0:
            self.restarts_needed = None
            self.connect()

    def false_disconnect(self) -> None:
        """Say that the session is lost, whether it is or not."""
        self._emit("webhookDisconnected", disconnected=True, moment=_now())

    def message(self) -> None:
        """Receive a customer's message."""
        picture = "https://pps.whatsapp.net/v/example.jpg"
        customer = {"id": "5511900000002", "profilePicture": picture}
        self._emit(
            "webhookReceived",
            **self._whose(),
            isGroup=False,
            messageId=self._message_id(),
            fromMe=False,
            chat=customer,
            sender=customer | {"pushName": "Cliente", "verifiedBizName": ""},
            moment=_now(),
            msgContent={"extendedTextMessage": {"text": "teste"}},
        )

    def ack(self) -> None:
        """Hear that a message arrived: it says status and connected, and is no word about the session."""
        self._emit(
            "webhookStatus",
            **self._whose(),
            status="DELIVERY",
            messageId=self._message_id(),
            fromMe=False,
            moment=_now(),
            chat={"id": "98000000000001@lid"},
            isGroup=False,
        )

    def _whose(self) -> dict[str, str]:
        return {"connectedPhone": self.phone, "connectedLid": "60000000000001@lid"}

    def _message_id(self) -> str:
        return f"{self._stage.random.getrandbits(80):020X}"

    def _emit(self, event: str, **fields: Any) -> None:
        url = self.urls[SLOTS[event]]
        if url:
            body = orjson.dumps({"event": event, "instanceId": self.name, **fields})
            headers = {"Content-Type": "application/json", "User-Agent": "axios/1.7.2"}
            self._send(event, [QueuedPost(url, headers, body)], RETRY)


class WapiHost(Host[WapiInstance]):
    """W-API with the instances of one customer; made by `Fleet.wapi`."""

    PREFIX: ClassVar = "/v1"
    FLIPS: ClassVar = ("close", "open")
    ERROR: ClassVar = "Erro interno"

    def __init__(self, courier: Courier) -> None:
        super().__init__(courier)
        self.key = f"{self._stage.random.getrandbits(160):040x}"
        """The token of the account, which lists the instances and is none of theirs."""
        self.listed: list[float] = []
        """Monotonic times at which the list was asked for, whatever the answer."""

    def add(self, name: str | None = None, state: str = "open", key: str | None = None) -> WapiInstance:
        """Add an instance, open or close."""
        token = key or f"{self._stage.random.getrandbits(160):040x}"
        return self._enter(WapiInstance(self._courier, name or self._made_name(), token, state))

    def asked(self, request: Request) -> str | None:
        """Return the id that a status-instance is about."""
        is_it = (request.method, request.path) == ("GET", ("v1", "instance", "status-instance"))
        return request.query.get("instanceId") if is_it else None

    def order(self, request: Request) -> tuple[str, str] | None:
        """Return the instance of a restart."""
        if (request.method, request.path) == ("GET", ("v1", "instance", "restart")):
            return request.query.get("instanceId", ""), "restart"
        return None

    def answer(self, request: Request) -> HttpAnswer:
        """Return the answer; a path it doesn't know is a page."""
        instance = self.channels.get(request.query.get("instanceId", ""))
        match request.method, request.path:
            case "GET", ("v1", "instance", what) if what in ASKED:
                if instance is None or not instance.exists:
                    return self.not_found("")
                if request.headers.get(b"authorization", b"").decode("latin-1") != f"Bearer {instance.key}":
                    return self.unauthorized()
                if what == "status-instance":
                    return self.state_answer(instance.name, instance.state)
                return self._told(instance, what, request.query)
            case "PUT", ("v1", "webhook", word) if word.removeprefix(UPDATE) in SLOTS.values():
                return self._set_url(instance, word.removeprefix(UPDATE), request)
            case "GET", ("v1", "integrator", "instances"):
                return self._listing(request)
            case _:
                return self.no_route(request)

    def state_answer(self, name: str, word: str | None) -> HttpAnswer:
        """Return a status-instance; its keys change places with the state."""
        match word:
            case None:
                return json_answer(200, {"instanceId": name})
            case "open":
                return json_answer(200, {"instanceId": name, "connected": True})
            case _:
                return json_answer(200, {"connected": False, "instanceId": name})

    def not_found(self, name: str) -> HttpAnswer:
        """Return the 404 of an expired, deleted or recreated instance."""
        return json_answer(404, {"error": True, "message": "Instância não encontrada"})

    def no_route(self, request: Request) -> HttpAnswer:
        """Return the page that healthy instances, too, get for a wrong path."""
        return page(404, f"Cannot {request.method} {request.raw_path}")

    def unauthorized(self) -> HttpAnswer:
        """Return the 401."""
        return json_answer(401, {"error": True, "message": "Token inválido"})

    def unavailable(self) -> HttpAnswer:
        """Return the page of the front."""
        return page(503, "Service Unavailable")

    def server_error(self) -> HttpAnswer:
        """Return the 500."""
        return json_answer(500, {"error": True, "message": self.ERROR})

    def _told(self, instance: WapiInstance, what: str, query: dict[str, str]) -> HttpAnswer:
        if what == "fetch-instance":
            return json_answer(200, _record(instance))
        if what == "restart":
            instance.restart()
            return json_answer(200, {"error": False, "message": "Instância reiniciada"})
        instance.qrs += 1
        if instance.state == "open":
            return json_answer(200, {"connected": True, "phone": instance.phone})
        told = {"error": False, "instanceId": instance.name}
        if what == "pairing-code":
            letters = self._stage.random.choices(LETTERS, k=8)
            return json_answer(200, told | {"pairingCode": "".join(letters)})
        return json_answer(200, told | {"qrcode": PICTURE})

    def _set_url(self, instance: WapiInstance | None, slot: str, request: Request) -> HttpAnswer:
        """Save an address; every body is said to be saved, but only `value` is."""
        if instance is None or not instance.exists:
            return self.not_found("")
        if request.headers.get(b"authorization", b"").decode("latin-1") != f"Bearer {instance.key}":
            return self.unauthorized()
        document = orjson.loads(request.body)
        if isinstance(document.get("value"), str):
            instance.urls[slot] = document["value"]
        return json_answer(200, {"error": False, "message": "Webhook atualizado"})

    def _listing(self, request: Request) -> HttpAnswer:
        self.listed.append(time.monotonic())
        if request.headers.get(b"authorization", b"").decode("latin-1") != f"Bearer {self.key}":
            return self.unauthorized()
        there = [instance for instance in self.channels.values() if instance.exists]
        size, number = (
            int(request.query.get(name, least)) for name, least in (("pageSize", 10), ("page", 1))
        )
        rows = [_listed(instance) for instance in there[size * (number - 1) : size * number]]
        pages = {"total": len(there), "totalPage": -(-len(there) // size), "pageSize": size, "page": number}
        return json_answer(200, {"error": False, "instances": rows, **pages})

    def _made_name(self) -> str:
        return "-".join(["LITE", *("".join(self._stage.random.choices(LETTERS, k=6)) for _ in "12")])


def _now() -> int:
    return int(time.time())


def _record(instance: WapiInstance) -> dict[str, Any]:
    return {
        "instanceId": instance.name,
        "token": instance.key,
        "created": CREATED,
        "expires": _now() * 1000 + YEAR if instance.expires is None else instance.expires,
        "paymentStatus": instance.payment_status,
        "isTrial": False,
        "instanceName": "Loja Exemplo",
        "connected": instance.state == "open",
        "connectedPhone": instance.phone,
        **dict.fromkeys(("contacts", "chats", "messagesSent", "messagesReceived"), 0),
        "webhookConnectedUrl": instance.urls["connected"],
        "webhookDeliveryUrl": instance.urls["delivery"],
        "webhookDisconnectedUrl": instance.urls["disconnected"],
        "webhookStatusUrl": instance.urls["message-status"],
        "webhookPresenceUrl": instance.urls["chat-presence"],
        "webhookReceivedUrl": instance.urls["received"],
        "automaticReading": False,
        "rejectCalls": False,
        "callMessage": "",
    }


def _listed(instance: WapiInstance) -> dict[str, Any]:
    """Return a row of the integrator's list, which doesn't tell what is paid for."""
    record = _record(instance)
    record["connected"] = (instance.shown or instance.state) == "open"
    return {name: record[name] for name in record if name not in ("expires", "paymentStatus", "isTrial")}
