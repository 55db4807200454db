"""`zapwatch check` as somebody types it: real gateways on loopback, with a service beside it and without."""

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault, Fleet, open_fleet
from tests.support.command import Said, zapwatch
from tests.support.service import KEY, Zapwatch, served
from tests.support.story import Story

SECRET_KEY = base64.urlsafe_b64encode(KEY).decode()
NEVER = timedelta(hours=1)
UNHURRIED: dict[str, Any] = {
    "stale_after": NEVER,
    "retry_after": NEVER,
    "probe_timeout": timedelta(seconds=5),
}
"""Settings under which the service asks nobody by itself after the first answer."""


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with open_fleet() as opened:
        yield opened


@pytest.fixture
def environ(dsn: str) -> dict[str, str]:
    return {"ZAPWATCH_DATABASE_URL": dsn, "ZAPWATCH_SECRET_KEYS": SECRET_KEY, "COLUMNS": "200"}


async def watched(z: Zapwatch, fleet: Fleet, count: int) -> tuple[Any, list[str]]:
    """Return a gateway and its channels, open and known to a service that runs for this alone or goes on."""
    host = await fleet.evolution()
    told = Story(z, fleet)
    return host, await told.watch_all(host, [host.add(f"loja-{n}") for n in range(count)])


def told_no_secret(said: Said, host: Any) -> None:
    """No key is in what was said."""
    for secret in (host.key, *(instance.key for instance in host.channels.values()), SECRET_KEY):
        assert secret not in said.out + said.err
    assert "Traceback" not in said.err


async def state_of(connection: Connection, channel: str) -> tuple[str, bool]:
    """Return a channel's state, and whether it waits for more answers like the last one."""
    row = await connection.fetchrow(
        "select state, memory::text like '%suspicion%' as suspected from zapwatch_states"
        " where channel_id = $1::text::uuid",
        channel,
    )
    assert row is not None
    return row["state"], row["suspected"]


async def test_one_channel_is_asked_without_a_running_service(
    dsn: str, environ: dict[str, str], fleet: Fleet, connection: Connection
) -> None:
    async with served(dsn, **UNHURRIED) as z:
        host, (channel, *_) = await watched(z, fleet, 1)
    instance = host.channels["loja-0"]
    asked = len(instance.probed)

    said = await zapwatch("check", channel, **environ)

    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("open (HTTP 200, ")
    assert said.out.endswith(" ms)\n")
    assert len(instance.probed) == asked + 1
    told_no_secret(said, host)


async def test_answers_of_the_command_count_like_all_others(
    dsn: str, environ: dict[str, str], fleet: Fleet, connection: Connection
) -> None:
    async with served(dsn, **UNHURRIED) as z:
        host, (channel, *_) = await watched(z, fleet, 1)
    host.channels["loja-0"].vanish()

    first = await zapwatch("check", channel, "--retry-after-seconds", "0.1", **environ)
    after_one = await state_of(connection, channel)
    second = await zapwatch("check", channel, "--retry-after-seconds", "0.1", **environ)
    after_two = await state_of(connection, channel)

    for said in (first, second):
        assert (said.code, said.out.partition(" (")[0]) == (0, "session_missing")
        told_no_secret(said, host)
    assert after_one == ("open", True)
    assert after_two[0] == "disconnected/unpaired"


async def test_gateway_that_does_not_answer_is_said_so(
    dsn: str, environ: dict[str, str], fleet: Fleet
) -> None:
    async with served(dsn, **UNHURRIED) as z:
        host, (channel, *_) = await watched(z, fleet, 1)

    host.fault = Fault.HANG
    hung = await zapwatch("check", channel, "--probe-timeout-seconds", "0.5", **environ)
    host.fault = Fault.REFUSED
    refused = await zapwatch("check", channel, **environ)

    assert (hung.code, hung.out.partition(", ")[0]) == (0, "timeout (no answer")
    assert (refused.code, refused.out.partition(", ")[0]) == (0, "unreachable (no answer")
    told_no_secret(hung, host)
    told_no_secret(refused, host)


async def test_wrong_key_is_named_and_not_shown(dsn: str, environ: dict[str, str], fleet: Fleet) -> None:
    async with served(dsn, **UNHURRIED) as z:
        host, (channel, *_) = await watched(z, fleet, 1)
        wrong = {"api_key": "wr0ng-k3y-0f-the-channel"}
        assert (await z.client.patch(f"/channels/{channel}", json=wrong)).status_code == 200

    said = await zapwatch("check", channel, **environ)

    assert (said.code, said.out.partition(", ")[0]) == (0, "unauthorized (HTTP 401")
    assert wrong["api_key"] not in said.out + said.err
    told_no_secret(said, host)


async def test_all_channels_are_asked_without_a_running_service(
    dsn: str, environ: dict[str, str], fleet: Fleet
) -> None:
    async with served(dsn, **UNHURRIED) as z:
        host, _ = await watched(z, fleet, 4)
    asked = [len(instance.probed) for instance in host.channels.values()]

    said = await zapwatch("check", **environ)

    assert said.code == 0
    assert said.out == "4 of 4 channels were probed; see `zapwatch channels`.\n"
    assert "Probing channels" in said.err
    assert "4/4" in said.err
    assert [len(instance.probed) for instance in host.channels.values()] == [count + 1 for count in asked]
    told_no_secret(said, host)


async def test_all_channels_are_asked_once_beside_a_running_service(
    dsn: str, environ: dict[str, str], fleet: Fleet
) -> None:
    async with served(dsn, **UNHURRIED) as z:
        host, (channel, *_) = await watched(z, fleet, 4)
        asked = [len(instance.probed) for instance in host.channels.values()]

        many = await zapwatch("check", **environ)
        counts = [len(instance.probed) for instance in host.channels.values()]
        one = await zapwatch("check", channel, **environ)

        assert (many.code, many.out.partition(";")[0]) == (0, "4 of 4 channels were probed")
        assert counts == [count + 1 for count in asked]
        assert (one.code, one.out.partition(" (")[0]) == (0, "open")
        assert (await z.state(channel))["state"] == "open"


async def test_nothing_to_ask_is_no_failure(environ: dict[str, str]) -> None:
    said = await zapwatch("check", **environ)

    assert (said.code, said.out.partition(";")[0]) == (0, "0 of 0 channels were probed")


async def test_channel_that_cannot_be_asked_is_said_so(
    dsn: str, environ: dict[str, str], fleet: Fleet
) -> None:
    async with served(dsn, **UNHURRIED) as z:
        host, (channel, paused) = await watched(z, fleet, 2)
        unconfigured = await z.channel("unconfigured")
        assert (await z.client.post(f"/channels/{paused}/pause")).status_code == 200
    asked = [len(instance.probed) for instance in host.channels.values()]
    other_key = base64.urlsafe_b64encode(bytes(32)).decode()

    said = {
        "There is no such channel.": await zapwatch("check", str(uuid4()), **environ),
        "can't be probed: it is paused or inactive.": await zapwatch("check", paused, **environ),
        "can't be probed: it has no address or no key.": await zapwatch("check", unconfigured, **environ),
        "can't be probed: its key can't be opened": await zapwatch(
            "check", channel, **{**environ, "ZAPWATCH_SECRET_KEYS": other_key}
        ),
    }

    for words, it in said.items():
        assert (it.code, it.out) == (1, "")
        assert words in it.err
        told_no_secret(it, host)
    assert [len(instance.probed) for instance in host.channels.values()] == asked


async def test_what_is_no_channel_is_refused(environ: dict[str, str]) -> None:
    said = await zapwatch("check", "loja-01", **environ)

    assert (said.code, said.out) == (2, "")
    assert "loja-01" in said.err


@pytest.mark.parametrize("arguments", [[], [str(uuid4())]], ids=["all", "one"])
async def test_database_without_migrations_is_said_in_words(empty_dsn: str, arguments: list[str]) -> None:
    said = await zapwatch(
        "check", *arguments, ZAPWATCH_DATABASE_URL=empty_dsn, ZAPWATCH_SECRET_KEYS=SECRET_KEY
    )

    assert said.code == 1
    assert "zapwatch migrate" in said.err
    assert "Traceback" not in said.err
