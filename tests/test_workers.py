"""Several processes serve one port as one would, whichever of them dies."""

import asyncio
import os
import re
import signal
from asyncio.subprocess import Process
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from receiver.service.server import bind
from receiver.service.supervisor import WorkerFails, supervise
from receiver.settings import Settings
from tests.conftest import reachable_folder
from tests.factories import Evolution
from tests.receiver.telemetry.test_metrics import value
from tests.support.eventually import eventually
from tests.support.soak import sized
from tests.test_kill import free_port, serving

WORKERS = 2
KILLS = sized(2, 3)


def workers_of(service: Process) -> set[int]:
    """Return the process numbers of a service's workers."""
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    return {int(child) for child in children if b"receiver.service.worker" in command_of(int(child))}


def command_of(pid: int) -> bytes:
    """Return a process's command line; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def serving_workers(client: httpx.AsyncClient, service: Process) -> set[int]:
    """Return the workers once all of them are there and one of them serves."""
    await eventually(lambda: len(workers_of(service)) == WORKERS, within=60)
    assert (await client.get("/readyz")).status_code == 200
    return workers_of(service)


def metrics_of(pids: set[int]) -> set[Path]:
    """Return the files of metrics that the processes have in memory."""
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids)
    return {Path(mapped) for mapped in re.findall(r"/\S+\.db$", maps, re.M)}


async def gone(*pids: int) -> None:
    """Return once all these processes have ended."""
    await eventually(lambda: not any(command_of(pid) for pid in pids), within=60)


async def post(hook: str, instance: Evolution) -> bool:
    """Post an event on a connection of its own; return whether it was answered with 204."""
    try:
        async with httpx.AsyncClient(timeout=30) as client:
            return (await client.post(hook, json=instance.message())).status_code == 204
    except httpx.TransportError:
        return False


@pytest.mark.soak
@pytest.mark.timeout(240)
async def test_killed_worker_is_replaced_and_its_counters_go_on() -> None:
    with reachable_folder() as folder:
        port = free_port()
        async with serving(folder / "data", port, ZAPWATCH_WORKERS=str(WORKERS)) as (service, client):
            made = await client.post("/channels", json={"provider": "evolution_api", "instance": "a"})
            hook, counted, answered = made.json()["webhook_url"], [0.0], 0
            for _ in range(KILLS):
                before = await serving_workers(client, service)
                answered += sum(await asyncio.gather(*(post(hook, Evolution("a")) for _ in range(40))))

                os.kill(min(before), signal.SIGKILL)

                await gone(min(before))
                assert await serving_workers(client, service) != before
                text = (await client.get("/metrics")).text
                answers = value(text, "zapwatch_webhook_answers_total", provider="evolution_api", code="204")
                counted.append(answers or 0.0)

    assert answered > 40 * KILLS * 2 / 3
    assert counted[-1] == answered
    assert counted == sorted(counted)


async def test_sigterm_ends_all_workers_and_exits_with_0() -> None:
    with reachable_folder() as folder:
        async with serving(folder / "data", free_port(), ZAPWATCH_WORKERS=str(WORKERS)) as (service, client):
            workers = await serving_workers(client, service)

            service.send_signal(signal.SIGTERM)

            assert await asyncio.wait_for(service.wait(), 60) == 0
            assert not any(map(command_of, workers))
        assert not (folder / "data" / "postgres" / "postmaster.pid").exists()


async def test_workers_end_when_their_supervisor_is_killed_and_leave_nothing_behind() -> None:
    with reachable_folder() as folder:
        async with serving(folder / "data", free_port(), ZAPWATCH_WORKERS=str(WORKERS)) as (service, client):
            workers = await serving_workers(client, service)
            mapped = await eventually(lambda: metrics_of(workers), within=60)
            (folder_of_metrics,) = {file.parent for file in mapped}

            service.kill()

            await gone(*workers)
            assert not folder_of_metrics.exists()


async def test_service_with_workers_ends_loudly_when_its_database_dies() -> None:
    with reachable_folder() as folder:
        async with serving(folder / "data", free_port(), ZAPWATCH_WORKERS=str(WORKERS)) as (service, client):
            workers = await serving_workers(client, service)
            postgres = int((folder / "data" / "postgres" / "postmaster.pid").read_text().split()[0])

            os.kill(postgres, signal.SIGKILL)

            assert await asyncio.wait_for(service.wait(), 60) == 1
            assert not any(map(command_of, workers))


async def test_workers_that_fail_at_once_again_and_again_end_the_service() -> None:
    nowhere = Settings(database_url=None, secret_keys=(bytes(32),))

    with closing(bind("127.0.0.1", 0)) as listener, pytest.raises(ExceptionGroup) as raised:
        await supervise(nowhere, listener)

    assert raised.group_contains(WorkerFails, match="ended at once 5 times")
