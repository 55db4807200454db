"""Reads a channel's rules from JSON of its tenant or another application; raises nothing on odd values."""

from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Final

from db.connection import json_columns
from statemachine.model import Monitoring, RecoverableCondition, Rules

LONGEST_THRESHOLD: Final = 1440
"""Minutes: a day, the most that the API takes."""
UNPROBED_WAIT: Final = timedelta(seconds=30)
"""How long an incident on old evidence waits when the channel can't be probed at all."""


IsRecoverable = Mapping[str, tuple[RecoverableCondition, ...]]
"""The conditions that the gateways of each provider have recovery actions for."""


@lru_cache(maxsize=8192)
def rules_of(
    installation: Rules,
    metadata: str | None,
    defaults: str | None,
    monitoring: Monitoring,
    configured: bool,
    recoverable: tuple[RecoverableCondition, ...] | None = None,
) -> Rules:
    """Return the rules for one channel: the installation's, the tenant's defaults, the channel's settings.

    `recoverable`: the conditions that its gateway has recovery actions for; None: the installation's.
    Odd values (strings, null, negative, too large) read as if they were not there.
    """
    settings = {**_settings(defaults), **_settings(metadata)}
    threshold = settings.get("heartbeat_threshold_minutes")
    return installation._replace(
        threshold=installation.threshold if threshold is None else timedelta(minutes=threshold),
        terminal_waits=settings.get("terminal_waits", installation.terminal_waits) is True,
        recovery=installation.recovery and settings.get("auto_recovery", True) is True,
        recoverable=installation.recoverable if recoverable is None else recoverable,
        probe_wait=installation.probe_wait if configured else UNPROBED_WAIT,
        monitoring=monitoring,
        configured=configured,
    )


def alerts_enabled(metadata: str | None, defaults: str | None) -> bool:
    """Return whether a channel's alerts are sent: its own setting, else its tenant's, else True."""
    for text in (metadata, defaults):
        document = json_columns.load(text)
        enabled = document.get("alerts_enabled") if isinstance(document, dict) else None
        if isinstance(enabled, bool):
            return enabled
    return True


def _settings(text: str | None) -> dict[str, float]:
    """Return the settings of a JSON object that have a sensible value."""
    document = json_columns.load(text)
    if not isinstance(document, dict):
        return {}
    settings = {
        name: document[name]
        for name in ("terminal_waits", "auto_recovery")
        if isinstance(document.get(name), bool)
    }
    threshold = document.get("heartbeat_threshold_minutes")
    if (
        isinstance(threshold, int | float)
        and not isinstance(threshold, bool)
        and 0 <= threshold <= LONGEST_THRESHOLD
    ):
        settings["heartbeat_threshold_minutes"] = threshold
    return settings
