"""Assigns alerts to messages and sets when they are due; pure: the caller writes the new messages.

The first alert to a destination waits a moment for others. Alerts within the window after that join one
message that is due when the window ends, and opens the next one.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from db.alerts.alerts import AlertDestination, OutgoingMessage, QueueKey

WINDOW: Final = timedelta(seconds=30)
"""Within this time after a message to a destination the next one waits, to combine several alerts."""

GATHER: Final = timedelta(seconds=1)
"""How long the first message to a destination waits for what else is due to it."""


class MessagePlanner:
    """Plans the messages of one round."""

    def __init__(
        self,
        now: datetime,
        window: timedelta,
        waiting: Mapping[QueueKey, UUID],
        newest_due: Mapping[QueueKey, datetime],
        gather: timedelta = GATHER,
    ) -> None:
        """`waiting`: messages that can be joined; `newest_due`: when the newest of each queue was due."""
        self._now: Final = now
        self._window: Final = window
        self._gather: Final = gather
        self._waiting: Final = dict(waiting)
        self._newest_due: Final = dict(newest_due)
        self.new: Final[dict[UUID, OutgoingMessage]] = {}

    def assign(self, destination: AlertDestination, purpose: str, is_grouped: bool) -> UUID:
        """Return the id of the message that carries an alert to a destination."""
        queue_key = destination.id, purpose
        if not is_grouped:
            return self._begin(destination, purpose, self._now)
        joined = self._waiting.get(queue_key)
        if joined is not None:
            return joined
        last = self._newest_due.get(queue_key)
        first = self._now + self._gather
        due_at = first if last is None else max(first, last + self._window)
        message_id = self._begin(destination, purpose, due_at)
        self._newest_due[queue_key] = due_at
        if due_at > self._now:
            self._waiting[queue_key] = message_id
        return message_id

    def is_held(self, message_id: UUID) -> bool:
        """Return whether a message still waits for others, so that nothing of it was sent."""
        return message_id in self._waiting.values()

    def _begin(self, destination: AlertDestination, purpose: str, due_at: datetime) -> UUID:
        message_id = uuid4()
        self.new[message_id] = OutgoingMessage(
            message_id, destination.id, destination.tenant_id, purpose, due_at
        )
        return message_id
