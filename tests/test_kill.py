"""What was answered with 204 is there after kill -9 of the service and all its processes, every time."""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from db.embedded.running import embedded_or_running
from tests.conftest import connected, reachable_folder
from tests.factories import Evolution
from tests.support.soak import sized

OPERATOR = "an-operator-of-the-tests"
CHANNELS = 20
TIMES = sized(3, 10)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def serving(
    data_dir: Path, port: int, **variables: str
) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    """Yield the service as its own process, ready; it's killed afterwards if it still lives."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ZAPWATCH_")},
        "ZAPWATCH_DATA_DIR": str(data_dir),
        "ZAPWATCH_PORT": str(port),
        "ZAPWATCH_OPERATOR_TOKEN": OPERATOR,
        **variables,
    }
    command = [sys.executable, "-m", "receiver", "serve"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE)
    try:
        assert process.stdout is not None
        greeting = await asyncio.wait_for(process.stdout.readline(), 60)
        base_url = re.findall(r"http://[\d.:]+", greeting.decode())[0]
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=20) as client:
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def answered_until_killed(
    client: httpx.AsyncClient, hook: str, instance: Evolution, answered: list[str]
) -> None:
    """Post events that each change the state, and keep the times of those that were answered with 204."""
    for number in range(100_000):
        body = instance.update("connecting" if number % 2 else "open")
        try:
            answer = await client.post(hook, json=body)
        except httpx.TransportError:
            return
        if answer.status_code == 204:
            answered.append(body["date_time"])


async def stored_times(data_dir: Path, channel_id: str) -> set[str]:
    """Return the gateway's times of all stored events of a channel, as the gateway wrote them.

    The first event after a kill may repeat one that was stored and not answered, and share its row.
    """
    async with embedded_or_running(data_dir) as dsn, connected(dsn) as connection:
        rows = await connection.fetch(
            "select at, last_at, count from zapwatch_events where channel_id = $1 and source = 'webhook'",
            UUID(channel_id),
        )
    assert max(row["count"] for row in rows) <= 2
    times = {row[column] for row in rows for column in ("at", "last_at")}
    return {at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" for at in times}


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_nothing_that_was_answered_is_lost_however_often_the_service_is_killed() -> None:
    with reachable_folder() as folder:
        data_dir, port = folder / "data", free_port()
        instances = [Evolution(f"loja-{number}") for number in range(CHANNELS)]
        hooks: dict[str, str] = {}
        answered: dict[str, list[str]] = {}
        for attempt in range(TIMES):
            async with serving(data_dir, port) as (process, client):
                for instance in instances if attempt == 0 else []:
                    body = {"provider": "evolution_api", "instance": instance.instance}
                    made = (await client.post("/channels", json=body)).json()
                    hooks[made["id"]], answered[made["id"]] = made["webhook_url"], []
                load = [
                    asyncio.create_task(answered_until_killed(client, hook, instance, answered[channel]))
                    for (channel, hook), instance in zip(hooks.items(), instances, strict=True)
                ]
                before = sum(map(len, answered.values()))
                async with asyncio.timeout(60):
                    while sum(map(len, answered.values())) < before + 200 + 37 * attempt:
                        await asyncio.wait(load, timeout=0.01)
                process.send_signal(signal.SIGKILL)
                await asyncio.gather(*load)

        async with serving(data_dir, port):
            for channel, times in answered.items():
                assert set(times) <= await stored_times(data_dir, channel)
        assert sum(map(len, answered.values())) > 200 * TIMES


async def test_sigterm_answers_what_was_accepted_and_exits_with_0() -> None:
    with reachable_folder() as folder:
        async with serving(folder / "data", free_port()) as (process, client):
            made = (
                await client.post("/channels", json={"provider": "evolution_api", "instance": "a"})
            ).json()
            answered: list[str] = []
            load = asyncio.create_task(
                answered_until_killed(client, made["webhook_url"], Evolution("a"), answered)
            )
            async with asyncio.timeout(20):
                while len(answered) < 20:
                    await asyncio.wait([load], timeout=0.01)
            began = datetime.now(UTC)

            process.send_signal(signal.SIGTERM)

            assert await process.wait() == 0
            assert datetime.now(UTC) - began < timedelta(seconds=20)
            await load
        assert set(answered) <= await stored_times(folder / "data", made["id"])
        assert not (folder / "data" / "postgres" / "postmaster.pid").exists()


async def test_service_ends_loudly_when_its_database_dies() -> None:
    with reachable_folder() as folder:
        async with serving(folder / "data", free_port()) as (process, _):
            postgres = int((folder / "data" / "postgres" / "postmaster.pid").read_text().split()[0])

            os.kill(postgres, signal.SIGKILL)

            assert await asyncio.wait_for(process.wait(), 30) == 1
