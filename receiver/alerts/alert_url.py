"""Makes the operators' destination that the setting ALERT_URL names; all others are made over the API."""

import logging
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from db.alerts.destinations import ALERT_URL, DestinationSpec, ensure_alert_url
from db.connection.types import Connection
from db.vault import Vault
from receiver.alerts.message import Event, InvalidConfig, Notifier

KINDS: Final = {"hooks.slack.com": "slack", "hooks.slack-gov.com": "slack"}
"""The kinds recognised by host; any other address is a webhook."""
DEFAULT_KIND: Final = "webhook"
EVENTS: Final = tuple(event.value for event in (
    Event.INCIDENT_OPENED, Event.INCIDENT_RESOLVED, Event.GATEWAY_OPENED, Event.GATEWAY_RESOLVED,
))  # fmt: skip
"""The default subscription of the operators' destination."""

log = logging.getLogger(__name__)


async def keep_alert_url(
    connection: Connection, vault: Vault, notifiers: Mapping[str, Notifier], url: str
) -> None:
    """Make the destination once over all starts and replicas; an invalid address is logged, not raised."""
    given = {"url": url}
    known = KINDS.get(urlsplit(url).hostname or "", DEFAULT_KIND)
    kind = known if known in notifiers else DEFAULT_KIND
    try:
        config = notifiers[kind].check(given)
    except InvalidConfig as error:
        log.error("ALERT_URL makes no destination: %s", error)
        return
    new = DestinationSpec(tenant_id=None, kind=kind, name=ALERT_URL, config=config, events=EVENTS)
    if await ensure_alert_url(connection, vault, new, given):
        log.info("ALERT_URL: alerts for operators go to a destination of kind %s", kind)
