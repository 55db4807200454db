"""Telling people of incidents: the registry of who can be told how; each kind of destination has a file."""

from typing import Final

from receiver.alerts.message import Notifier
from receiver.alerts.notifiers.email import EmailNotifier
from receiver.alerts.notifiers.slack import SlackNotifier
from receiver.alerts.notifiers.telegram import TelegramNotifier
from receiver.alerts.notifiers.webhook import WebhookNotifier

_ALL: Final[tuple[Notifier, ...]] = (WebhookNotifier(), EmailNotifier(), SlackNotifier(), TelegramNotifier())
NOTIFIERS: Final[dict[str, Notifier]] = {notifier.kind: notifier for notifier in _ALL}
"""By the kind of destination; they keep nothing between two messages."""
