"""Whatever is sent to a webhook address: it answers 202 or 204 and goes on working."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.ingest.quarantine import KEPT_OF_BODY
from db.registry.tokens import hash_token
from receiver.providers import PROVIDERS
from tests.factories import Evolution, stamp
from tests.support.hostile import (
    MIB,
    ODD,
    SAMPLES,
    TAKEN,
    TIMES,
    Rig,
    bodies,
    broken,
    places,
    replaced,
    written,
)
from tests.support.service import zapwatch


@pytest.mark.parametrize("token", ["channel", "gateway"])
@pytest.mark.parametrize("provider", list(PROVIDERS))
async def test_what_is_not_json_is_taken_and_spoils_nothing(rig: Rig, provider: str, token: str) -> None:
    instance, channel, hooks = await rig.hooks(provider)
    answers = {}

    for name, body in broken(instance).items():
        answers[name] = await rig.z.post(hooks[token], body)
        await rig.expect_working(provider, instance, channel)

    assert {name: status for name, status in answers.items() if status not in TAKEN} == {}


@pytest.mark.parametrize("token", ["channel", "gateway"])
@pytest.mark.parametrize("provider", list(PROVIDERS))
async def test_odd_value_at_any_place_is_taken_and_spoils_nothing(
    rig: Rig, provider: str, token: str
) -> None:
    instance, channel, hooks = await rig.hooks(provider)
    await rig.expect_working(provider, instance, channel)
    refused, deaf = {}, {}

    for body in bodies(provider, instance):
        for path in places(body):
            for value in ODD:
                odd = written(replaced(body, path, value))
                answer = await rig.z.post(hooks[token], odd)
                if answer not in TAKEN:
                    refused[body.get("event"), path, str(value)[:20]] = answer
            try:
                await rig.expect_working(provider, instance, channel)
            except AssertionError as error:
                deaf[body.get("event"), path] = str(error)

    assert refused == {}
    assert deaf == {}


@pytest.mark.parametrize("field", ["date_time", "moment", "timestamp", "messageTimestamp"])
@pytest.mark.parametrize("time", TIMES, ids=lambda time: ascii(time)[:40])
async def test_odd_time_is_taken_and_spoils_nothing(rig: Rig, field: str, time: Any) -> None:
    provider = {"moment": "wapi", "timestamp": "waha"}.get(field, "evolution_api")
    instance, channel, hooks = await rig.hooks(provider)
    await rig.expect_working(provider, instance, channel)
    if field == "messageTimestamp":
        body = Evolution(instance).event("messages.upsert", [{"messageTimestamp": time}, {}, None])
    else:
        body = {**bodies(provider, instance)[0], field: time}

    answers = [await rig.z.post(hook, written(body)) for hook in hooks.values()]

    assert set(answers) == {204}
    await rig.expect_working(provider, instance, channel)


async def test_event_without_a_time_before_the_clock_is_known_gives_way_to_the_next_one(dsn: str) -> None:
    """Its gateway is three hours behind; nothing has told so when the first event comes."""
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, {**instance.update("close", 428), "date_time": None})

        await z.hear(channel, instance.update("open"))

        assert (await z.stands(channel))[0] == "open"


@pytest.mark.parametrize("hours", [-14, 1, 5.123, 14])
async def test_one_event_of_a_wrong_zone_gives_way_to_the_next_two(dsn: str, hours: float) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open"))
        wrong = stamp(datetime.now(UTC) + timedelta(hours=hours))
        await z.hear(channel, {**instance.update("close", 428), "date_time": wrong})

        await z.hear(channel, instance.update("connecting"), instance.update("open"))

        assert (await z.stands(channel))[0] == "open"


@pytest.mark.parametrize("reason", ["401", 401.0, 2**31, -401, 10**30, -(10**30), 1.5, None, [], {"a": 1}])
async def test_odd_status_reason_costs_the_reason_and_not_the_event(rig: Rig, reason: Any) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    await rig.expect_working("evolution_api", instance, channel)
    data = {"instance": instance, "state": "close", "statusReason": reason}

    await rig.z.hear(channel, written({**Evolution(instance).update("close", 7), "data": data}))

    assert (await rig.z.state(channel))["state"] == "disconnected"


async def test_lone_surrogates_and_nuls_beside_it_cost_no_event(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = Evolution(instance).update("close", 401, profileName="\ud800\0", wuid=10**30)

    assert await rig.z.post(hooks["gateway"], written(body)) == 204

    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


async def test_byte_order_mark_costs_no_event(rig: Rig) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    body = b"\xef\xbb\xbf" + written(Evolution(instance).update("close", 401))

    assert await rig.z.post(channel, body) in TAKEN

    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


@pytest.mark.parametrize(
    "suffix",
    [
        "",
        "/",
        "//",
        "/connection-update",
        "/connection-update/",
        "/a/b/c?x=1&token=2#f",
        "/%00",
        "/a%00b",
        "/%ED%A0%80",
        "/%FF%FE",
        "/%C0%AF..%2F..%2Fetc",
        "/../../x",
        "/%2e%2e/x",
        "/%zz%",
        "/a%0Ab",
        "/a%0D%0AX-Injected:%201",
        "/%E2%80%AE",
        "/" + "x" * 8000,
        "?" + "y=1&" * 2000,
    ],
    ids=lambda suffix: suffix[:30],
)
async def test_any_suffix_leads_to_the_address(rig: Rig, suffix: str) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    answers = {}

    for name, hook in hooks.items():
        path = hook.removeprefix("http://zapwatch") + suffix
        for kind, content in (("good", body), ("bad", b"{")):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
            answers[name, kind] = await rig.raw(head.encode() + content)

    assert answers == {
        ("channel", "good"): 204,
        ("channel", "bad"): 202,
        ("gateway", "good"): 204,
        ("gateway", "bad"): 202,
    }
    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type: multipart/form-data",
        "Content-Type: \xff\xfe",
        "Content-Encoding: br",
        "Authorization: Bearer wrong",
        "X-HTTP-Method-Override: GET",
        "Expect: 100-continue",
        "Range: bytes=0-1",
        "Cookie: " + "a" * 4000,
    ],
    ids=lambda header: ascii(header)[:40],
)
async def test_odd_header_costs_no_event(rig: Rig, header: str) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    path = hooks["channel"].removeprefix("http://zapwatch")
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n"

    assert await rig.raw(head.encode("latin-1") + body) in {100, 204}

    await rig.z.until(
        lambda: rig.z.stands(channel), lambda found: found == ("disconnected", "logged_out", True)
    )


async def test_gzipped_body_is_taken(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    content = gzip.compress(written(Evolution(instance).update("close", 401)))

    for hook in hooks.values():
        answer = await rig.z.client.post(hook, content=content, headers={"Content-Encoding": "gzip"})
        assert answer.status_code in TAKEN

    await rig.expect_working("evolution_api", instance, channel)


@pytest.mark.parametrize(("inflated", "answer"), [(10 * MIB, 202), (2000 * MIB, 413)])
async def test_gzip_bomb_is_never_inflated(rig: Rig, inflated: int, answer: int) -> None:
    """What is compressed is not undone: it is a body that can't be read, of the size that it came with."""
    instance, channel, hooks = await rig.hooks("evolution_api")
    packer = zlib.compressobj(9, wbits=31)
    first, again = (packer.compress(bytes(10 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    # After a full flush what follows needs nothing before it, so that it can be repeated.
    bomb = first + again * (inflated // (10 * MIB) - 1) + packer.flush()
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}

    answers = [
        (await rig.z.client.post(hook, content=bomb, headers=headers)).status_code for hook in hooks.values()
    ]

    assert answers == [answer, answer]
    token = hooks["channel"].rpartition("/")[2]
    kept = "select max(size) from zapwatch_quarantine where token_hash = $1"
    assert await rig.connection.fetchval(kept, hash_token(token)) == (len(bomb) if answer == 202 else None)
    await rig.expect_working("evolution_api", instance, channel)


@pytest.mark.parametrize("lie", [1, 10, 1000])
async def test_body_shorter_than_its_length_is_not_heard(rig: Rig, lie: int) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    path = hooks["channel"].removeprefix("http://zapwatch")

    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + lie}\r\n\r\n"
    writer.write(head.encode() + body)
    writer.write_eof()
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()

    assert received == b""
    assert (await rig.z.state(channel))["state"] == "unknown"
    await rig.expect_working("evolution_api", instance, channel)


async def test_body_longer_than_its_length_is_heard_as_far_as_it_is_said_to_go(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    path = hooks["channel"].removeprefix("http://zapwatch")
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    assert await rig.raw(head.encode() + body + b"}" * 100) == 204

    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


async def test_callback_of_twilio_is_a_form_and_changes_nothing(rig: Rig) -> None:
    """Twilio sends forms, and message callbacks are no evidence: there is nothing to keep, sealed or not."""
    _, _, hooks = await rig.hooks("twilio")
    before = await rig.connection.fetchval("select count(*) from zapwatch_quarantine")
    sample = json.loads((SAMPLES / "twilio/status_callback_form.INFERRED.json").read_text())

    answers = [(await rig.z.client.post(hook, data=sample)).status_code for hook in hooks.values()]

    assert answers == [204, 204]
    assert await rig.connection.fetchval("select count(*) from zapwatch_quarantine") == before


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "post"]
)
async def test_other_methods_are_refused_and_change_nothing(rig: Rig, method: str) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    path = hooks["channel"].removeprefix("http://zapwatch")
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    assert await rig.raw(head.encode() + body) in {400, 405}

    assert (await rig.z.state(channel))["state"] == "unknown"


@pytest.mark.parametrize(
    "provider", ["evolution_api", "wapi", "twilio", "waha", "nobody", "%00", "evolution"]
)
async def test_token_that_nobody_has_is_refused_and_nothing_kept(rig: Rig, provider: str) -> None:
    # Channels of other tests are probed meanwhile.
    kept = (
        "select (select count(*) from zapwatch_quarantine)"
        " + (select count(*) from zapwatch_events where source <> 'probe')"
    )
    before = await rig.connection.fetchval(kept)
    bodies = (b"", b"{", written(Evolution().update("open")), b"x" * (2 * MIB))

    answers = {
        await rig.z.post(f"http://zapwatch/webhooks/{provider}/{token}", body)
        for token in ("zw_nobody", "%00", "%FF", "%ED%A0%80", "x" * 5000)
        for body in bodies
    }

    assert answers == {401}
    assert await rig.connection.fetchval(kept) == before


async def test_unknown_instance_is_one_row_that_counts(rig: Rig) -> None:
    _, channel, hooks = await rig.hooks("evolution_api")
    names = ["s nobody", "s \0\0", "s \ud800!", "s " + "é" * 300, "s ../..", "s a\nb"]

    for name in names:
        for _ in range(3):
            body = written(Evolution(name).update("close", 401))
            assert await rig.z.post(hooks["gateway"], body) == 202

    rows = await rig.connection.fetch(
        "select instance, count, last_state from zapwatch_unknown_instances where instance like 's %'"
    )
    kept = {"s nobody", "s ??", "s ?!", "s " + "é" * 253, "s ../..", "s a\nb"}
    assert {row["instance"] for row in rows} == kept
    assert {(row["count"], row["last_state"]) for row in rows} == {(3, "close")}
    assert (await rig.z.state(channel))["state"] == "unknown"


async def test_unknown_instance_is_counted_whatever_its_event(rig: Rig) -> None:
    hook = rig.gateways["evolution_api"][1]
    silent = Evolution("silent-stranger")

    answers = [
        await rig.z.post(hook, body)
        for body in (
            silent.event("chats.set", []),
            silent.event("send.message", {}),
            silent.message(age=timedelta(hours=1)),
            silent.event("something.new", {}),
            silent.message(),
        )
    ]

    counted = await rig.connection.fetchval(
        "select count from zapwatch_unknown_instances where instance = 'silent-stranger'"
    )
    assert (answers, counted) == ([202] * 5, 5)


def large(body: dict[str, Any], size: int) -> bytes:
    """A body of at least this size whose names come first, as gateways write them."""
    text = json.dumps(body)
    return (text[:-1] + ', "base64": "' + "A" * size + '"}').encode()


async def test_over_the_limit_traffic_counts_as_traffic(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("connecting"))

    for hook in hooks.values():
        before = await rig.z.state(channel)
        assert await rig.z.post(hook, large(evolution.message(), MIB)) == 204
        after = await rig.z.state(channel)
        assert after["last_event_at"] > before["last_event_at"]
        assert after["state"] == "connecting"

    stranger = large(Evolution("large-stranger").message(), MIB)
    assert await rig.z.post(hooks["gateway"], stranger) == 202
    await rig.expect_working("evolution_api", instance, channel)


async def test_over_the_limit_traffic_of_an_open_channel_is_written_within_5_seconds(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    await rig.expect_working("evolution_api", instance, channel)
    before = await rig.z.state(channel)

    assert await rig.z.post(hooks["gateway"], large(Evolution(instance).message(), 3 * MIB)) == 204

    async with asyncio.timeout(5):
        await rig.z.until(
            lambda: rig.z.state(channel), lambda now: now["last_event_at"] > before["last_event_at"]
        )


@pytest.mark.parametrize(
    "body",
    [
        b"x" * (MIB + 1),
        b"{" + b" " * MIB + b"}",
        b"[" * (2 * MIB),
        b"\0" * (2 * MIB),
        b'{"x":"' + b"A" * (70 * 1024) + b'","event":"messages.upsert","y":"' + b"A" * MIB + b'"}',
        large({"event": "something.new", "instance": "loja-01"}, MIB),
        large({"event": ["messages.upsert"], "instance": "loja-01"}, MIB),
    ],
    ids=["x", "blank", "brackets", "nul", "names too late", "unknown event", "odd event"],
)
@pytest.mark.parametrize("provider", ["evolution_api", "wapi"])
async def test_over_the_limit_and_unrecognised_is_413_and_not_kept(
    rig: Rig, provider: str, body: bytes
) -> None:
    instance, channel, hooks = await rig.hooks(provider)
    before = await rig.connection.fetchval("select count(*) from zapwatch_quarantine")

    answers = [await rig.z.post(hook, body) for hook in hooks.values()]

    assert answers == [413, 413]
    assert await rig.connection.fetchval("select count(*) from zapwatch_quarantine") == before
    await rig.expect_working(provider, instance, channel)


async def test_exactly_the_limit_is_read_whole(rig: Rig) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))

    assert await rig.z.post(channel, body + b" " * (MIB - len(body))) == 204

    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


async def test_twenty_megabytes_in_chunks_are_heard_out_and_answered(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("connecting"))
    before = await rig.z.state(channel)

    async def chunks(start: bytes) -> AsyncIterator[bytes]:
        yield start
        for _ in range(320):
            yield b"A" * 65536

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{rig.port}") as client:
        path = hooks["gateway"].removeprefix("http://zapwatch")
        known = await client.post(path, content=chunks(json.dumps(evolution.message()).encode()[:-1] + b',"'))
        nothing = await client.post(path, content=chunks(b"A"))

    assert (known.status_code, nothing.status_code) == (204, 413)
    assert (await rig.z.state(channel))["last_event_at"] > before["last_event_at"]
    await rig.expect_working("evolution_api", instance, channel)


async def test_unreadable_body_is_kept_sealed_and_only_its_beginning(rig: Rig) -> None:
    _, _, hooks = await rig.hooks("evolution_api")
    token = hooks["channel"].rpartition("/")[2]
    body = b'{"apikey":"PLAINLY", ' + b"PLAINLY " * 5000

    assert await rig.z.post(hooks["channel"], body, "/a%00b") == 202

    (row,) = await rig.connection.fetch(
        "select * from zapwatch_quarantine where token_hash = $1", hash_token(token)
    )
    assert b"PLAINLY" not in row["body"]
    assert (row["size"], row["provider"], row["suffix"]) == (len(body), "evolution_api", "a?b")
    opened = rig.z.app.vault.open(row["body"], f"quarantine:{hash_token(token).hex()}")
    assert opened == body[:KEPT_OF_BODY]
    assert "PLAINLY" not in row["problem"]


async def test_token_keeps_a_thousand_unreadable_bodies_even_when_they_come_at_once(rig: Rig) -> None:
    _, _, hooks = await rig.hooks("evolution_api")
    digest = hash_token(hooks["channel"].rpartition("/")[2])
    await rig.connection.execute(
        "insert into zapwatch_quarantine (token_hash, provider, body, size, problem)"
        " select $1, 'evolution_api', '', 0, '' from generate_series(1, 999)",
        digest,
    )

    # Whoever comes first is held up until the others are there.
    async with rig.connection.transaction():
        await rig.connection.execute("lock table zapwatch_quarantine in exclusive mode")
        posts = asyncio.gather(*(rig.z.post(hooks["channel"], b"{") for _ in range(60)))
        waiting = "select count(*) from pg_locks where not granted"
        await rig.z.until(lambda: rig.connection.fetchval(waiting), lambda many: many >= 5)
    answers = await posts
    other = await rig.z.post(hooks["gateway"], b"{")

    assert set(answers) | {other} == {202}
    kept = "select count(*) from zapwatch_quarantine where token_hash = $1"
    assert await rig.connection.fetchval(kept, digest) == 1000


def webhook_samples() -> list[tuple[str, str]]:
    """Provider and text of every sample that is JSON; answers of probes serve as strangers."""
    names = {"evolution": "evolution_api"}
    return [
        (names.get(path.parent.name, path.parent.name), path.read_text())
        for path in sorted(SAMPLES.glob("*/*.json"))
    ]


@st.composite
def mutants(draw: st.DrawFn) -> tuple[str, bytes]:
    """A provider, and a sample of it with a few things gone wrong; the instance is named loja."""
    provider, text = draw(st.sampled_from(webhook_samples()))
    document = json.loads(text)
    for _ in range(draw(st.integers(0, 4))):
        path = draw(st.sampled_from(list(places(document))))
        value = draw(
            st.sampled_from([*ODD, *TIMES])
            | st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
                max_leaves=5,
            )
        )
        document = replaced(document, path, value)
    body = written(document)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        until = at + draw(st.integers(0, 5))
        body = body[:at] + draw(st.binary(max_size=4)) + body[until:]
    return provider, body[: draw(st.sampled_from([len(body)] * 3 + [len(body) // 2]))]


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(mutant=mutants())
async def test_mutated_sample_is_taken_and_spoils_nothing(rig: Rig, mutant: tuple[str, bytes]) -> None:
    provider, body = mutant
    instance, channel, hooks = await rig.hooks(provider)
    await rig.expect_working(provider, instance, channel)

    answers = [await rig.z.post(hook, body) for hook in hooks.values()]

    assert set(answers) <= TAKEN
    await rig.expect_working(provider, instance, channel)
