"""Twilio: WhatsApp senders that are asked; it pushes nothing. docs/provider-facts.md#twilio"""

from base64 import b64encode
from typing import Any, ClassVar, Final

from receiver.sandbox.channel import SandboxChannel
from receiver.sandbox.delivery import Courier
from receiver.sandbox.host import Host
from receiver.sandbox.wire import HttpAnswer, Request, json_answer

ERRORS: Final = "https://www.twilio.com/docs/errors"
SENDERS: Final = ("v2", "Channels", "Senders")


class Sender(SandboxChannel):
    """One sender; its state is Twilio's word for it."""

    OPEN: ClassVar[str] = "ONLINE"

    def become(self, status: str) -> None:
        """Have another status from now on."""
        self.state = status


class TwilioHost(Host[Sender]):
    """Twilio with one account; made by `Fleet.twilio`."""

    FLIPS: ClassVar = ("OFFLINE", "ONLINE")
    ERROR: ClassVar = "Internal Server Error"

    def __init__(self, courier: Courier) -> None:
        super().__init__(courier)
        self.key = f"AC{self._hex()}:{self._hex()}"
        """Account and its token."""

    def add(self, name: str | None = None, state: str = "ONLINE") -> Sender:
        """Add a sender in a status of Twilio's."""
        return self._enter(Sender(self._courier, name or f"XE{self._hex()}", self.key, state))

    def asked(self, request: Request) -> str | None:
        """Return the sid of the sender that is fetched."""
        is_it = request.method == "GET" and request.path[:3] == SENDERS
        return request.path[3] if is_it and len(request.path) == 4 else None

    def order(self, request: Request) -> None:
        """Return None: a sender can't be told anything."""

    def answer(self, request: Request) -> HttpAnswer:
        """Return the answer; the account is checked first."""
        credentials = b"Basic " + b64encode(self.key.encode())
        if request.headers.get(b"authorization") != credentials:
            return self.unauthorized()
        name = self.asked(request)
        if name is None:
            is_list = request.method == "GET" and request.path == SENDERS
            return self._listing() if is_list else self.no_route(request)
        sender = self.channels.get(name)
        if sender is None or not sender.exists:
            return self.not_found(name)
        return self.state_answer(name, sender.state)

    def state_answer(self, name: str, word: str | None) -> HttpAnswer:
        """Return a sender."""
        document = _sender(name, word or "")
        if word is None:
            del document["status"]
        return json_answer(200, document)

    def not_found(self, name: str) -> HttpAnswer:
        """Return the 404 of a sender that isn't there."""
        return _missing(f"/v2/Channels/Senders/{name}")

    def no_route(self, request: Request) -> HttpAnswer:
        """Return the same of a path."""
        return _missing(request.raw_path)

    def unauthorized(self) -> HttpAnswer:
        """Return the 401."""
        return _failure(401, 20003, "Authenticate")

    def unavailable(self) -> HttpAnswer:
        """Return the 503."""
        return _failure(503, 20503, "Service Unavailable")

    def server_error(self) -> HttpAnswer:
        """Return the 500."""
        return _failure(500, 20500, self.ERROR)

    def _hex(self) -> str:
        return f"{self._stage.random.getrandbits(128):032x}"

    def _listing(self) -> HttpAnswer:
        there = [it for it in self.channels.values() if it.exists]
        url = "https://messaging.twilio.com/v2/Channels/Senders?Channel=whatsapp&PageSize=50&Page=0"
        meta = {
            "page": 0,
            "page_size": 50,
            "first_page_url": url,
            "previous_page_url": None,
            "url": url,
            "next_page_url": None,
            "key": "senders",
        }
        return json_answer(200, {"senders": [_sender(it.name, it.state or "") for it in there], "meta": meta})


def _failure(status: int, code: int, message: str) -> HttpAnswer:
    more = f"{ERRORS}/{code}"
    return json_answer(status, {"code": code, "message": message, "more_info": more, "status": status})


def _missing(path: str) -> HttpAnswer:
    return _failure(404, 20404, f"The requested resource {path} was not found")


def _sender(name: str, status: str) -> dict[str, Any]:
    offline = {
        "code": "30008",
        "message": "No delivery",
        "more_info": "https://www.twilio.com/docs/api/errors/30008",
    }
    nothing = ("verification_method", "verification_code", "voice_application_sid", "account_type")
    return {
        "sid": name,
        "status": status,
        "sender_id": "whatsapp:+15017122661",
        "configuration": {"waba_id": "1234567000", **dict.fromkeys(nothing)},
        "webhook": {
            "callback_url": "https://callback.example.com",
            "callback_method": "POST",
            "fallback_url": "https://fallback.example.com",
            "fallback_method": "POST",
            "status_callback_url": "https://statuscallback.example.com",
            "status_callback_method": "POST",
        },
        "profile": _profile(),
        "compliance": None,
        "properties": {"quality_rating": "HIGH", "messaging_limit": "10K Customers/24hr"},
        "offline_reasons": [offline] if status == "OFFLINE" else None,
        "url": f"https://messaging.twilio.com/v2/Channels/Senders/{name}",
    }


def _profile() -> dict[str, Any]:
    nothing = (
        "banner_url",
        "privacy_url",
        "terms_of_service_url",
        "accent_color",
        "use_case",
        "phone_numbers",
    )
    return {
        "name": "Example Profile Name",
        "about": "This is an example about text.",
        "address": "123 Example St, Example City, EX 12345",
        "description": "This is an example description.",
        "emails": [{"email": "email@email.com", "label": "Email"}],
        "logo_url": "https://logo_url.example.com",
        "vertical": "Automotive",
        "websites": [{"website": "https://website1.example.com", "label": "Website"}],
        **dict.fromkeys(nothing),
    }
