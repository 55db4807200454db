"""The gateways that Zapwatch understands: one file each, named nowhere else but here."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from db.reconcile.qr import Qr
from receiver.providers.evolution import Evolution
from receiver.providers.qr import NoQr
from receiver.providers.report import (
    BulkAnswer,
    Condition,
    DeepProbeResult,
    Listing,
    NotApplicable,
    Order,
    ProbeAnswer,
    Question,
    RecoveryAction,
    RecoveryPlan,
    RegisteredWebhooks,
    Report,
    Subscription,
)
from receiver.providers.twilio import Twilio
from receiver.providers.waha import Waha
from receiver.providers.wapi import Wapi
from statemachine.model import RecoverableCondition


class DeepProbeSupport(Protocol):
    """How a provider's gateways betray a connection that is dead while they say open, and what proves it."""

    def has_records(self, version: str) -> bool:
        """Return whether gateways of this version have records that may disagree with what they say."""

    def ask_records(self, key: str) -> Question:
        """Return how to ask for the records of a gateway's instances, as far as the key is shown them."""

    def read_records(self, status: int, body: bytes) -> Mapping[str, str | None] | None:
        """Return for each instance the sign, if any, that it isn't open at all; None: this is no answer.

        A sign is the same as long as it is about the same end. It holds no secret.
        """

    def ask(self, instance: str, key: str) -> Order:
        """Return the deep probe: a question that WhatsApp itself must answer and no person notices."""

    def read(self, status: int, body: bytes) -> DeepProbeResult:
        """Return what the answer to the deep probe shows."""


class Provider(Protocol):
    """What one gateway's dialect says, in the machine's words."""

    @property
    def name(self) -> str:
        """The provider's name in addresses and rows."""

    @property
    def has_version(self) -> bool:
        """Whether `GET /` tells a version that the meaning of its events depends on."""

    @property
    def deep(self) -> DeepProbeSupport | None:
        """How a dead connection is found out; None where nothing tells it apart from a good one."""

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return what a webhook says, or raise `Unreadable`."""

    def glimpse(self, head: bytes) -> Report | None:
        """Return what the beginning of an oversized body shows, or None when that is nothing known."""

    def ask(self, instance: str, key: str) -> Question:
        """Return how to ask for a channel's state; it changes nothing on the gateway."""

    def read(self, status: int, body: bytes) -> ProbeAnswer:
        """Return what a probe's answer says."""

    def read_version(self, body: bytes) -> str | None:
        """Return the version in an answer of `GET /`, or None."""

    def ask_webhooks(self, instance: str, key: str) -> Question | None:
        """Return how to ask where a channel's state events go; None when the gateway can't be asked."""

    def read_webhooks(self, status: int, body: bytes) -> tuple[str, ...] | None:
        """Return the addresses that are told of a channel's state, none when losses are told to nobody.

        None: this is no answer to the question.
        """


class Managed(Provider, Protocol):
    """A provider whose gateways list their instances, and can be told where to send webhooks."""

    @property
    def has_subscriptions(self) -> bool:
        """Whether the answer to `ask_webhooks` also tells until when a channel is paid for."""

    @property
    def one_key_for_all(self) -> bool:
        """Whether the key that lists a gateway's instances also asks for each one's state."""

    def slots(self, traffic: bool) -> Sequence[str]:
        """Return the names of the places that we need, those for messages only for `traffic`."""

    def read_registered_webhooks(self, status: int, body: bytes) -> RegisteredWebhooks | None:
        """Return what the answer to `ask_webhooks` says is in the places, or None."""

    def sends_secret(self, version: str | None) -> bool:
        """Say whether a place can have a secret, which then comes with each webhook in `SECRET_HEADER`."""

    def fill(
        self,
        slot: str,
        instance: str,
        key: str,
        address: str,
        version: str | None,
        traffic: bool,
        secret: str | None,
    ) -> Order:
        """Return how to put an address into a place, with the secret if it can have one.

        It is told of no more events than we need.
        """

    def put_back(
        self, row: Mapping[str, object], instance: str, key: str, version: str | None
    ) -> Sequence[Order]:
        """Return how to have the places as the row of `read_registered_webhooks` says."""

    def read_subscription(self, status: int, body: bytes) -> Subscription | None:
        """Return what the answer to `ask_webhooks` tells of a channel's subscription, or None."""

    def ask_instances(self, key: str, page: int) -> Question:
        """Return how to ask for a page of the gateway's instances, from 1 on."""

    def read_instances(self, status: int, body: bytes) -> Listing | None:
        """Return what the gateway lists, or None when this is no answer to the question."""

    @property
    def bulk_answer_is_hint(self) -> bool:
        """Whether what `read_all` returns may be long untrue, so that it can only ask for a probe."""

    def ask_all(self, key: str | None, page: int) -> Question | None:
        """Return how to ask about all instances at once, from page 1 on; None when `key` is wanting.

        `key` is the gateway's own; one that isn't needed isn't sent.
        """

    def read_all(self, status: int, body: bytes) -> BulkAnswer | None:
        """Return what the answer to `ask_all` says, or None when the gateway doesn't tell us that."""


class Scannable(Provider, Protocol):
    """A provider whose gateways show QRs to whoever asks."""

    @property
    def qr_life(self) -> timedelta:
        """How long a QR can be scanned at most."""

    def ask_qr(self, instance: str, key: str, number: str | None) -> Question:
        """Return how to ask for a QR, with a number for a pairing code, too; it may begin a new session."""

    def read_qr(self, status: int, body: bytes) -> Qr | NoQr:
        """Return what the answer holds; it says nothing about the channel's state."""


class RecoverySupport(Provider, Protocol):
    """A provider whose gateways can be told to bring a channel back."""

    @property
    def actions(self) -> frozenset[RecoveryAction]:
        """What its gateways can be told to do."""

    @property
    def recoverable(self) -> tuple[RecoverableCondition, ...]:
        """What they may be told to do something about without being asked by a person."""

    def plan_recovery(self, condition: Condition) -> RecoveryPlan | NotApplicable:
        """Return which order helps a channel that stands so, or why none does."""

    def order(self, action: RecoveryAction, instance: str, key: str, version: str | None) -> Order:
        """Return the call that gives an order, to be made once."""

    def read_order(self, status: int, body: bytes) -> str | None:
        """Return what its answer says against the order, or None: it was taken, which heals nothing yet."""


MANAGED: Final[dict[str, Managed]] = {provider.name: provider for provider in (Evolution(), Wapi())}
RECOVERY_SUPPORT: Final[dict[str, RecoverySupport]] = {it.name: it for it in (Evolution(), Wapi(), Waha())}
PROVIDERS: Final[dict[str, Provider]] = {**MANAGED, **{it.name: it for it in (Twilio(), Waha())}}
SCANNABLE: Final[dict[str, Scannable]] = {provider.name: provider for provider in (Evolution(), Wapi())}
DEEP: Final[dict[str, DeepProbeSupport]] = {
    name: it.deep for name, it in PROVIDERS.items() if it.deep is not None
}
RECOVERABLE: Final = {
    name: RECOVERY_SUPPORT[name].recoverable if name in RECOVERY_SUPPORT else () for name in PROVIDERS
}
"""What the gateways of each provider have orders for."""
