"""`python -m faults.trouble.fast SPEED`: the service with its own durations so many times as short.

The product knows nothing of it: what is no setting (`Timings`) is given before the service starts.
"""

import os
import sys
from dataclasses import fields
from datetime import timedelta
from functools import partial
from typing import Any, Final

import receiver.service.composition
import receiver.service.server
from receiver.alerts.grouping import causes
from receiver.alerts.grouping.batching import WINDOW
from receiver.alerts.routing import Routing
from receiver.jobs.loop import LoopTiming
from receiver.service.lifecycle import working
from receiver.settings import load_settings
from receiver.timings import NORMAL, Timings

MODULE: Final = "faults.trouble.fast"
FASTEST_LOOPS: Final = 5.0
SETTINGS: Final = {
    "stale_after": 120.0,
    "retry_after": 10.0,
    "terminal_grace": 15.0,
    "gateway_settle": 60.0,
    "gateway_tell_after": 30.0,
}
"""The defaults of the settings that time compresses, in seconds."""


def variables(speed: float) -> dict[str, str]:
    """Return the settings of a service whose time runs so many times as fast."""
    compressed = {f"{name}_seconds": f"{seconds / speed:.3f}" for name, seconds in SETTINGS.items()}
    return compressed | {
        "breaker_max_seconds": f"{max(1.0, 60 / speed):.3f}",
        "probe_timeout_seconds": f"{max(1.0, 8 / speed):.3f}",
        "outgoing_allow": "127.0.0.0/8",
    }


def timings(speed: float) -> Timings:
    """Return the durations that are no settings, compressed; the heartbeat's is left."""
    given: dict[str, Any] = {
        field.name: getattr(NORMAL, field.name) / speed
        for field in fields(Timings)
        if isinstance(getattr(NORMAL, field.name), timedelta) and field.name != "heartbeat_every"
    }
    loops = LoopTiming(speed=min(speed, FASTEST_LOOPS))
    return Timings(**given, recovery_speed=speed, loops=loops)


def hasten_telling(speed: float) -> None:
    """Have messages wait for others, and in doubt, for a time so much shorter."""
    receiver.service.composition.Routing = partial(Routing, window=WINDOW / speed)  # type: ignore[assignment, attr-defined]
    for name in ("DOUBT", "OFFLINE_AGAIN"):
        setattr(causes, name, getattr(causes, name) / speed)


if __name__ == "__main__":
    hasten_telling(float(sys.argv[1]))
    hastened = partial(working, timings=timings(float(sys.argv[1])))
    receiver.service.server.working = hastened  # type: ignore[attr-defined]
    sys.exit(receiver.service.server.serve(load_settings(os.environ)))
