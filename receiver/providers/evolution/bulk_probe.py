r"""Evolution's `/metrics`: the state of every loaded instance in one answer, from the process's memory.

There from 2.3.3 on when PROMETHEUS_METRICS is true; otherwise a 404. It asks for no `apikey`, and may want a
login of its own (401) or an address of a list (403): docs/provider-facts.md#evolution-metrics. A line for
each instance:

    evolution_instance_state{instance="loja-01",integration="WHATSAPP-BAILEYS",state="open"} 1

The state is that of connectionState, `unknown` while that has none (boot). In labels `\`, `"` and ends
of lines are escaped.
"""

import re
from typing import Final

from receiver.providers.report import BulkAnswer, ProbeAnswer, Question
from statemachine.model import Reason, Trigger

METRICS: Final = Question("/metrics", {})
ANSWERS: Final = {
    b"open": ProbeAnswer(Trigger.OPENED, None, 200),
    b"connecting": ProbeAnswer(Trigger.CONNECTING, Reason.CONNECTING, 200),
    b"close": ProbeAnswer(Trigger.DROPPED, Reason.DISCONNECTED, 200),
    b"refused": ProbeAnswer(Trigger.DROPPED, Reason.DISCONNECTED, 200),
}
"""As connectionState's. Other words, `unknown` among them, say nothing here: the channel is asked itself."""
OURS: Final = re.compile(rb"^evolution_instances_total ", re.M)
"""What no other program's metrics have."""
LINE: Final = re.compile(rb"^evolution_instance_state\{(.{1,4096})\} 1\r?$", re.M)
"""Bounded, for while an expression is matched nothing else runs, and a gateway may send anything."""
LABEL: Final = re.compile(rb'(?<![^,])(instance|state)="((?:[^"\\]|\\.)*)"(?:,|$)')
ESCAPED: Final = re.compile(rb"\\(.)")


def read(status: int, body: bytes) -> BulkAnswer | None:
    """Return what the answer says of each instance, or None when it is not Evolution's metrics."""
    if status != 200 or OURS.search(body) is None:
        return None
    labels = (dict(LABEL.findall(line[1])) for line in LINE.finditer(body))
    return BulkAnswer(
        {
            _plain(found[b"instance"]): ANSWERS[found[b"state"]]
            for found in labels
            if b"instance" in found and found.get(b"state") in ANSWERS
        }
    )


def _plain(label: bytes) -> str:
    plain = ESCAPED.sub(lambda it: b"\n" if it[1] == b"n" else it[1], label)
    return plain.decode("utf-8", "replace")
