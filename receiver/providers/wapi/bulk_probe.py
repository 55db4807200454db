"""W-API's integrator list as a hint: its `connected` is what the panel shows, which can lie for hours.

That it says connected is worth nothing. That it says disconnected is worth a probe.
docs/provider-facts.md#wapi-calls
"""

from typing import Final

from receiver.providers.report import BulkAnswer, ProbeAnswer, Question, document_of, instance_of, number
from statemachine.model import Reason, Trigger

PAGE: Final = 1000
"""Instances that are asked for at a time; should W-API return fewer, its count of pages says so."""

SHOWN: Final = {
    True: ProbeAnswer(Trigger.OPENED, None, 200),
    False: ProbeAnswer(Trigger.DROPPED, Reason.DISCONNECTED, 200),
}


def ask(key: str, page: int) -> Question:
    """Return the question for one page; the key is the account's."""
    path = f"/integrator/instances?pageSize={PAGE}&page={page}"
    return Question(path, {"Authorization": f"Bearer {key}"})


def read(status: int, body: bytes) -> BulkAnswer | None:
    """Return what the list shows of each instance, or None when this is no list."""
    document = document_of(body)
    rows = None if document is None else document.get("instances")
    if status != 200 or document is None or not isinstance(rows, list):
        return None
    shown = {
        instance: SHOWN[row["connected"]]
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("connected"), bool)
        if (instance := instance_of(row.get("instanceId"))) is not None
    }
    return BulkAnswer(shown, number(document.get("totalPage")) or 1)
