"""What differs between Evolution's versions: docs/provider-facts.md#evolution."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from receiver.sandbox.delivery import Retry

EVERYWHERE: Final = frozenset(
    {
        "APPLICATION_STARTUP",
        "CALL",
        "CHATS_DELETE",
        "CHATS_SET",
        "CHATS_UPDATE",
        "CHATS_UPSERT",
        "CONNECTION_UPDATE",
        "CONTACTS_SET",
        "CONTACTS_UPDATE",
        "CONTACTS_UPSERT",
        "GROUPS_UPSERT",
        "GROUP_PARTICIPANTS_UPDATE",
        "GROUP_UPDATE",
        "LABELS_ASSOCIATION",
        "LABELS_EDIT",
        "MESSAGES_DELETE",
        "MESSAGES_EDITED",
        "MESSAGES_SET",
        "MESSAGES_UPDATE",
        "MESSAGES_UPSERT",
        "PRESENCE_UPDATE",
        "QRCODE_UPDATED",
        "SEND_MESSAGE",
        "TYPEBOT_CHANGE_STATUS",
        "TYPEBOT_START",
    }
)
ONLY_V1: Final = frozenset({"NEW_JWT_TOKEN", "CHAMA_AI_ACTION"})
SINCE_V2: Final = frozenset({"REMOVE_INSTANCE", "LOGOUT_INSTANCE"})
SINCE_2_3: Final = frozenset({"SEND_MESSAGE_UPDATE", "INSTANCE_CREATE", "INSTANCE_DELETE", "STATUS_INSTANCE"})
SINCE_2_4: Final = frozenset({"MESSAGING_HISTORY_SET"})
NEVER_GLOBAL: Final = frozenset(
    {"STATUS_INSTANCE", "LOGOUT_INSTANCE", "REMOVE_INSTANCE", "MESSAGING_HISTORY_SET"}
)

ONCE: Final = Retry()
EVERY_30_S: Final = Retry(attempts=10, first=30.0, factor=1.0)
GROWING: Final = Retry(attempts=10, jitter=0.2, final=frozenset({400, 401, 403, 404, 422}), timeout=30.0)


@dataclass(frozen=True)
class Version:
    """A version, and what it does."""

    text: str

    @cached_property
    def number(self) -> tuple[int, ...]:
        """Its three numbers; a release candidate counts as its release."""
        return tuple(int(digits) for digits in re.findall(r"\d+", self.text)[:3])

    @property
    def is_v1(self) -> bool:
        """Whether it is of the first line: other keys, other verbs, no events about instances."""
        return self.number < (2,)

    @property
    def tells_every_close(self) -> bool:
        """Whether it sends a close also when it reconnects by itself."""
        return self.number < ((1, 8, 3) if self.is_v1 else (2, 2, 1))

    @property
    def final_codes(self) -> frozenset[int]:
        """The codes after which it doesn't reconnect: docs/provider-facts.md#evolution-close."""
        if self.is_v1:
            return frozenset({401})
        return frozenset({401, 402, 403, 406, 408} if self.number >= (2, 4) else {401, 402, 403, 406})

    @property
    def logs_out_silently(self) -> bool:
        """Whether a logout by API sends no webhook."""
        return self.number >= (2, 4)

    @property
    def reconnects_after(self) -> float:
        """Seconds before it reconnects."""
        return 3.0 if self.number >= (2, 4) else 0.0

    @property
    def connects_all_at_boot(self) -> bool:
        """Whether logged-out instances, too, connect when it starts, and show QRs."""
        return self.number < (2, 3, 7)

    @property
    def has_metrics(self) -> bool:
        """Whether it can tell its instances' states at `/metrics`."""
        return self.number >= (2, 3, 3)

    @property
    def restart_verb(self) -> str:
        """The method of instance/restart; the other one is an unknown route."""
        return "PUT" if self.is_v1 else "POST"

    @property
    def tells_boom(self) -> bool:
        """Whether a look-up that fails answers with Baileys' own error, as a 400 (2.3.0 on)."""
        return self.number >= (2, 3)

    @property
    def exposes_key(self) -> bool:
        """Whether webhooks carry the key unless told otherwise."""
        return self.is_v1

    @cached_property
    def local_events(self) -> frozenset[str]:
        """What the webhook of an instance may subscribe to."""
        events = EVERYWHERE | (ONLY_V1 if self.is_v1 else SINCE_V2)
        if self.number >= (2, 3):
            events |= SINCE_2_3
        return events | SINCE_2_4 if self.number >= (2, 4) else events

    @cached_property
    def global_events(self) -> frozenset[str]:
        """What the global webhook may carry."""
        events = self.local_events if self.is_v1 else self.local_events | SINCE_2_3
        return events - NEVER_GLOBAL

    @property
    def global_needs_local(self) -> bool:
        """Whether the global webhook is sent only for instances that have one of their own."""
        return not self.is_v1 and self.number < (2, 2, 1)

    @property
    def retry(self) -> Retry:
        """When it tries again to deliver a webhook."""
        if self.number < (2, 2, 1):
            return ONCE
        return EVERY_30_S if self.number < (2, 3) else GROWING
