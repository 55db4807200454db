"""Programs that hold their queues by the state of channels: told each change in order, if they wish it."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.factories import Evolution
from tests.receiver.alerts.sink import Sink, open_sink
from tests.support.service import Zapwatch, zapwatch
from tests.support.told import LOOPBACK, Programs, tenant

WISH = "channel.state_changed"


async def settled(z: Zapwatch, destination: str) -> list[dict[str, Any]]:
    """Return what was decided for a destination, oldest first, once nothing is to leave any more."""

    async def log() -> list[dict[str, Any]]:
        return list(reversed((await z.get("/deliveries", destination_id=destination))["items"]))

    return await z.until(log, lambda items: items and all(item["outcome"] for item in items))


async def test_states_are_told_in_order_to_who_wishes_it_and_to_nobody_else(dsn: str) -> None:
    async with open_sink() as sink, zapwatch(dsn, **LOOPBACK) as z:
        ours, theirs = await tenant(z), await tenant(z, "Outra")
        programs = Programs(z, sink)
        await programs.add("wishing", ours, WISH)
        await programs.add("usual", ours)
        await programs.add("theirs", theirs, WISH)
        await programs.add("operators", None, WISH, "incident.opened")
        channel, evolution = await z.channel(tenant_id=ours, name="Loja Centro"), Evolution()

        bodies = [evolution.update("open"), evolution.update("connecting"), evolution.update("close", 401)]
        for count, body in enumerate(bodies, 1):
            await z.hear(channel, body)
            await programs.until("wishing", count)
        await programs.until("operators", 4)
        since = (await z.state(channel))["since"]
        told = programs.told("wishing")

        assert [
            (one["data"]["previous_state"], one["data"]["state"], one["data"]["reason"]) for one in told
        ] == [
            ("unknown", "open", None),
            ("open", "connecting", "connecting"),
            ("connecting", "disconnected", "logged_out"),
        ]
        sequences = [one["data"]["sequence"] for one in told]
        assert sequences == sorted(set(sequences))
        assert told[-1]["type"] == WISH
        assert told[-1]["data"] == {
            "incident_id": None,
            "channel_id": channel,
            "tenant_id": ours,
            "name": "Loja Centro",
            "kind": None,
            "reason": "logged_out",
            "started_at": since[:19] + "Z",
            "resolved_at": None,
            "duration_seconds": None,
            "link": None,
            "state": "disconnected",
            "previous_state": "connecting",
            "sequence": sequences[-1],
        }
        assert [one["type"] for one in await programs.until("usual", 1)] == ["incident.opened"]
        assert Counter(one["type"] for one in programs.told("operators")) == {WISH: 3, "incident.opened": 1}
        assert programs.told("theirs") == []


async def test_maintenance_and_silence_do_not_hold_the_truth_back(dsn: str) -> None:
    async with open_sink() as sink, zapwatch(dsn, **LOOPBACK) as z:
        ours = await tenant(z)
        programs = Programs(z, sink)
        await programs.add("wishing", ours, WISH, "incident.*")
        channel = await z.channel(tenant_id=ours, metadata={"alerts_enabled": False})
        ends_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        answer = await z.client.post("/maintenance", json={"tenant_id": ours, "ends_at": ends_at})
        assert answer.status_code == 201, answer.text
        evolution = Evolution()

        await z.hear(channel, evolution.update("open"))
        await programs.until("wishing", 1)
        await z.hear(channel, evolution.update("close", 401))
        await z.incident(channel)
        told = await programs.until("wishing", 2)

        assert [(one["type"], one["data"]["state"]) for one in told] == [
            (WISH, "open"),
            (WISH, "disconnected"),
        ]


async def refused(z: Zapwatch, sink: Sink, count: int) -> None:
    """Wait until the sink has refused so many messages."""

    async def ids() -> set[str]:
        return {got.headers["webhook-id"] for got in sink.got}

    await z.until(ids, lambda seen: len(seen) >= count)


async def test_program_that_was_down_is_told_the_newest_alone(dsn: str) -> None:
    async with open_sink() as sink, zapwatch(dsn, **LOOPBACK) as z:
        ours = await tenant(z)
        programs = Programs(z, sink)
        wishing = await programs.add("wishing", ours, WISH)
        channel, evolution = await z.channel(tenant_id=ours), Evolution()
        sink.status = 503

        for count, state in enumerate(("open", "connecting", "open", "close"), 1):
            await z.hear(channel, evolution.update(state))
            await refused(z, sink, count)
        before, sink.status = len(sink.got), 200
        log = await settled(z, wishing)

        assert [(one["reason"], one["outcome"]) for one in log] == [
            *[("superseded", "void")] * 3,
            ("state_changed", "delivered"),
        ]
        assert {one["channel_id"] for one in log} == {channel}
        accepted = [got.json["data"]["state"] for got in sink.got[before:]]
        assert accepted == ["disconnected"]


async def test_two_replicas_tell_each_change_once(dsn: str) -> None:
    channels = 12
    async with open_sink() as sink, zapwatch(dsn, **LOOPBACK) as z, zapwatch(dsn, **LOOPBACK) as other:
        ours = await tenant(z)
        programs = Programs(z, sink)
        await programs.add("wishing", ours, WISH)
        for number in range(channels):
            instance = f"loja-{number}"
            evolution, channel = Evolution(instance), await z.channel(instance, tenant_id=ours)
            other.hooks[channel] = z.hooks[channel]
            await z.hear(channel, evolution.update("open"))
            await programs.until("wishing", 2 * number + 1)
            await other.hear(channel, evolution.update("close", 401))
            await programs.until("wishing", 2 * number + 2)

        told = Counter(
            (one["data"]["channel_id"], one["data"]["sequence"]) for one in programs.told("wishing")
        )

        assert set(told.values()) == {1}
        assert len(told) == 2 * channels


async def test_people_who_wish_it_read_it_in_their_language(dsn: str) -> None:
    words = {
        "pt-BR": "WhatsApp da unidade Loja Centro agora está: conectado",
        "en": "WhatsApp of Loja Centro is now: connected",
        "es": "WhatsApp de la unidad Loja Centro ahora está: conectado",
    }
    async with open_sink() as sink, zapwatch(dsn, **LOOPBACK) as z:
        for locale in words:
            ours = await tenant(z, locale=locale)
            config = {"url": f"{sink.url}/{locale}"}
            body = {"kind": "slack", "tenant_id": ours, "config": config, "events": [WISH]}
            assert (await z.client.post("/destinations", json=body)).status_code == 201
            channel = await z.channel(locale, tenant_id=ours, name="Loja Centro")
            await z.hear(channel, Evolution(locale).update("open"))

        async def read() -> dict[str, str]:
            return {got.path.removeprefix("/"): got.json["text"] for got in sink.got}

        assert await z.until(read, lambda texts: len(texts) == len(words)) == words
