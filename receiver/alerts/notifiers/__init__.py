"""The registry of notifiers: one module for each kind of destination."""

from typing import Final

from db.connection.types import Pool
from receiver.alerts.message import Notifier
from receiver.alerts.notifiers.email import EmailNotifier
from receiver.alerts.notifiers.in_app import InApp
from receiver.alerts.notifiers.slack import SlackNotifier
from receiver.alerts.notifiers.telegram import TelegramNotifier
from receiver.alerts.notifiers.webhook import WebhookNotifier

_ALL: Final[tuple[Notifier, ...]] = (WebhookNotifier(), EmailNotifier(), SlackNotifier(), TelegramNotifier())
NOTIFIERS: Final[dict[str, Notifier]] = {notifier.kind: notifier for notifier in _ALL}
"""By the kind of destination; they keep nothing between two messages."""


def every_notifier(pool: Pool) -> dict[str, Notifier]:
    """Return the notifiers by kind, with the one that writes to the tenant's own application."""
    return {**NOTIFIERS, InApp.kind: InApp(pool)}
