"""Telling people of incidents: the registry of who can be told how; each kind of destination has a file."""

from typing import Final

from receiver.alerts.notice import Notifier
from receiver.alerts.webhook import WebhookNotifier

NOTIFIERS: Final[dict[str, Notifier]] = {notifier.kind: notifier for notifier in (WebhookNotifier(),)}
"""By the kind of destination; they keep nothing between two messages."""
