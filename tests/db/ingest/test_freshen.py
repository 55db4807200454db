"""Live traffic written without the machine comes to what the machine makes of it."""

from typing import Any

import pytest

from db.connection.types import Connection
from db.ingest.apply import apply, freshen
from db.ingest.entry import Entry, Source
from statemachine.model import Reason, Trigger
from statemachine.signals import Alive, Answered, GatewaySilence
from tests.conftest import connected
from tests.db.entries import RULES, Of, at, register

History = list[tuple[str, Any]]
HISTORIES: dict[str, tuple[History, bool]] = {
    "open": ([("told", Trigger.OPENED)], True),
    "open by a probe": ([("answered", Trigger.OPENED)], True),
    "back again": ([("told", Trigger.OPENED), ("told", Trigger.CONNECTING), ("told", Trigger.OPENED)], True),
    "back from a silence of its gateway": (
        [("told", Trigger.OPENED), ("silenced", None), ("told", Trigger.OPENED)], True),
    "unknown": ([], False),
    "connecting": ([("told", Trigger.OPENED), ("told", Trigger.CONNECTING)], False),
    "in doubt": ([("told", Trigger.OPENED), ("answered", Trigger.SESSION_MISSING)], False),
    "in error": ([("told", Trigger.OPENED), *[("answered", Trigger.UNREACHABLE)] * 3], False),
    "flapping": ([("told", trigger) for trigger in (Trigger.OPENED, Trigger.CONNECTING) * 5]
                 + [("told", Trigger.OPENED)], False),
    "an incident from outside": ([("told", Trigger.OPENED), ("outside", None)], False),
}  # fmt: skip
STATE = """
select last_event_at, fresh_at, probed_at, due_at, probe_due_at, state, version, memory
from zapwatch_states where channel_id = $1
"""


async def live(connection: Connection, channel: Of, history: History) -> float:
    """Apply a history, an event every twenty seconds, and return when it ended."""
    seconds = 0.0
    for seconds, (kind, what) in enumerate(history):
        seconds *= 20
        if kind == "outside":
            open_incident = "select whatsapp_heartbeat_open_incident($1, 'error')"
            await connection.execute(open_incident, channel.channel_id)
            await apply(connection, [channel.deadline(seconds)], RULES)
            continue
        if kind == "told":
            entry = channel.told(seconds, what)
        elif kind == "silenced":
            silence = GatewaySilence(at(seconds), at(seconds - 1), Reason.GATEWAY_UNREACHABLE)
            entry = channel.signal(seconds, Source.PROBE, silence)
        else:
            version = await connection.fetchval("select version from zapwatch_states")
            entry = channel.signal(seconds, Source.PROBE, Answered(at(seconds), at(seconds), version, what))
        await apply(connection, [entry], RULES)
    return seconds


@pytest.mark.parametrize(("history", "plain"), HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize("later", [0.0, 5.0, -5.0])
async def test_what_it_writes_is_what_the_machine_would(
    connection: Connection, history: History, plain: bool, later: float
) -> None:
    channel = Of(await register(connection))
    heard_at = at(await live(connection, channel, history) + later)
    transaction = connection.transaction()
    await transaction.start()
    alive = Entry(channel.channel_id, Source.WEBHOOK, "alive", heard_at, Alive(heard_at))
    await apply(connection, [alive], RULES)
    expected = await connection.fetchrow(STATE, channel.channel_id)
    await transaction.rollback()
    before = await connection.fetchrow(STATE, channel.channel_id)

    written = await freshen(connection, {channel.channel_id: heard_at}, RULES)

    found = await connection.fetchrow(STATE, channel.channel_id)
    assert found == (expected if written else before)
    if later >= 0:
        assert written == ({channel.channel_id} if plain else set())


async def test_locked_channels_are_left_to_others(connection: Connection, dsn: str) -> None:
    locked, free = Of(await register(connection)), Of(await register(connection, "loja-02"))
    for channel in (locked, free):
        await apply(connection, [channel.told(0, Trigger.OPENED)], RULES)

    async with connected(dsn) as other, other.transaction():
        await other.execute("select from zapwatch_states where channel_id = $1 for update", locked.channel_id)
        written = await freshen(connection, {c.channel_id: at(5) for c in (locked, free)}, RULES)

    assert written == {free.channel_id}
