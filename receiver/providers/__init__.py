"""The registry of providers: one file or folder each, named nowhere else."""

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
    """How to detect, and prove, a dead connection that a provider's gateways report as open."""

    def has_records(self, version: str) -> bool:
        """Return whether gateways of this version store records that may contradict the reported state."""

    def ask_records(self, key: str) -> Question:
        """Return how to ask for the records of a gateway's instances, as far as the key may see them."""

    def read_records(self, status: int, body: bytes) -> Mapping[str, str | None] | None:
        """Return for each instance the sign, if any, that it isn't open; None: not a valid answer.

        A sign stays the same while it is about the same disconnection. It holds no secret.
        """

    def ask(self, instance: str, key: str) -> Order:
        """Return the deep probe: a question that WhatsApp itself must answer and no user notices."""

    def read(self, status: int, body: bytes) -> DeepProbeResult:
        """Return what the answer to the deep probe shows."""


class Provider(Protocol):
    """Translates the API of one kind of gateway to the terms of the state machine."""

    @property
    def name(self) -> str:
        """The provider's name in addresses and rows."""

    @property
    def has_version(self) -> bool:
        """Whether `GET /` returns a version that the meaning of its events depends on."""

    @property
    def deep(self) -> DeepProbeSupport | None:
        """How a dead connection is detected; None if it can't be."""

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return what a webhook says, or raise `Unreadable`."""

    def glimpse(self, head: bytes) -> Report | None:
        """Return what the beginning of an oversized body shows, or None if it is not recognised."""

    def ask(self, instance: str, key: str) -> Question:
        """Return how to ask for a channel's state; it changes nothing on the gateway."""

    def read(self, status: int, body: bytes) -> ProbeAnswer:
        """Return what a probe's answer says."""

    def read_version(self, body: bytes) -> str | None:
        """Return the version in an answer of `GET /`, or None."""

    def ask_webhooks(self, instance: str, key: str) -> Question | None:
        """Return how to ask where a channel's state events go; None when the gateway can't be asked."""

    def read_webhooks(self, status: int, body: bytes) -> tuple[str, ...] | None:
        """Return the addresses that state events go to; empty when disconnections are sent nowhere.

        None: not a valid answer.
        """


class Managed(Provider, Protocol):
    """A provider whose gateways list their instances and accept webhook addresses."""

    @property
    def has_subscriptions(self) -> bool:
        """Whether the answer to `ask_webhooks` also holds the end of a channel's subscription."""

    @property
    def one_key_for_all(self) -> bool:
        """Whether the key that lists a gateway's instances also permits probes of each."""

    def address_fields(self, traffic: bool) -> Sequence[str]:
        """Return the names of the webhook address fields to set; those for messages only with `traffic`."""

    def read_registered_webhooks(self, status: int, body: bytes) -> RegisteredWebhooks | None:
        """Return the addresses in the answer to `ask_webhooks`; None: not a valid answer."""

    def sends_secret(self, version: str | None) -> bool:
        """Return whether a secret can be set, which then comes with each webhook in `SECRET_HEADER`."""

    def set_address(
        self,
        field: str,
        instance: str,
        key: str,
        address: str,
        version: str | None,
        traffic: bool,
        secret: str | None,
    ) -> Order:
        """Return the call that sets a webhook address, with the secret where one can be set.

        It subscribes only to the events that are needed.
        """

    def restore_webhooks(
        self, row: Mapping[str, object], instance: str, key: str, version: str | None
    ) -> Sequence[Order]:
        """Return the calls that restore a row of `read_registered_webhooks`."""

    def read_subscription(self, status: int, body: bytes) -> Subscription | None:
        """Return the subscription in the answer to `ask_webhooks`, or None."""

    def ask_instances(self, key: str, page: int) -> Question:
        """Return how to ask for a page of the gateway's instances, from 1 on."""

    def read_instances(self, status: int, body: bytes) -> Listing | None:
        """Return one page of the list; None: not a valid answer."""

    @property
    def bulk_answer_is_hint(self) -> bool:
        """Whether what `read_all` returns may be outdated, so that it can only make a probe due."""

    def ask_all(self, key: str | None, page: int) -> Question | None:
        """Return how to ask about all instances at once, from page 1 on; None when `key` is missing.

        `key` is the gateway's own; one that isn't needed isn't sent.
        """

    def read_all(self, status: int, body: bytes) -> BulkAnswer | None:
        """Return the states in the answer to `ask_all`; None when the gateway refuses them."""


class Scannable(Provider, Protocol):
    """A provider whose gateways return QRs on request."""

    @property
    def qr_life(self) -> timedelta:
        """How long a QR can be scanned at most."""

    def ask_qr(self, instance: str, key: str, number: str | None) -> Question:
        """Return how to ask for a QR, with a number for a pairing code, too; it may begin a new session."""

    def read_qr(self, status: int, body: bytes) -> Qr | NoQr:
        """Return the QR in the answer, or why there is none; it is no evidence of the channel's state."""


class RecoverySupport(Provider, Protocol):
    """A provider whose gateways have orders that may reconnect a channel."""

    @property
    def actions(self) -> frozenset[RecoveryAction]:
        """The recovery actions that its gateways support."""

    @property
    def recoverable(self) -> tuple[RecoverableCondition, ...]:
        """The conditions that are recovered automatically."""

    def plan_recovery(self, condition: Condition) -> RecoveryPlan | NotApplicable:
        """Return the recovery plan for a channel in this condition, or why there is none."""

    def order(self, action: RecoveryAction, instance: str, key: str, version: str | None) -> Order:
        """Return the call that gives an order; it must be made once only."""

    def read_order(self, status: int, body: bytes) -> str | None:
        """Return why the gateway refused the order; None: accepted, which is not yet a recovery."""


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
"""The conditions that each provider's gateways can recover."""
