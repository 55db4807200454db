"""Telling people of incidents: the registry of who can be told how; each kind of destination has a file."""

from typing import Final

from receiver.alerts.email import EmailNotifier
from receiver.alerts.notice import Notifier
from receiver.alerts.slack import SlackNotifier
from receiver.alerts.telegram import TelegramNotifier
from receiver.alerts.webhook import WebhookNotifier

_ALL: Final[tuple[Notifier, ...]] = (WebhookNotifier(), EmailNotifier(), SlackNotifier(), TelegramNotifier())
NOTIFIERS: Final[dict[str, Notifier]] = {notifier.kind: notifier for notifier in _ALL}
"""By the kind of destination; they keep nothing between two messages."""
