"""Each fault is what it says, seen by a client; a channel's own wins over the host's."""

import asyncio

import httpx
import pytest

from receiver.sandbox import Fault, open_fleet
from receiver.sandbox.evolution.host import EvolutionHost
from tests.receiver.sandbox.inbox import caller

ANSWERED = {
    Fault.NOT_FOUND: (404, b"does not exist"),
    Fault.ROUTE_NOT_FOUND: (404, b'"Cannot GET /instance'),
    Fault.HTML_NOT_FOUND: (404, b"<pre>Cannot GET"),
    Fault.ERROR_200: (200, b'"error":true'),
    Fault.NO_STATE: (200, b'{"instance":{"instanceName":"loja-01"}}'),
    Fault.UNAUTHORIZED: (401, b'"Unauthorized"'),
    Fault.UNAVAILABLE: (503, b"LICENSE_REQUIRED"),
    Fault.SERVER_ERROR: (500, b"Prisma"),
    Fault.HTML_200: (200, b"<html>"),
    Fault.GARBAGE: (200, b"\xff"),
    Fault.SLOW: (200, b'"state":"open"'),
}
CUT = {Fault.RESET: httpx.ReadError, Fault.HANG: httpx.ReadTimeout, Fault.HANG_BODY: httpx.ReadTimeout}


async def ask(client: httpx.AsyncClient, host: EvolutionHost) -> httpx.Response:
    """Ask for the state of loja-01."""
    headers = {"apikey": host.key}
    return await client.get(f"{host.url}/instance/connectionState/loja-01", headers=headers)


@pytest.mark.parametrize("of_host", [True, False], ids=["host", "channel"])
@pytest.mark.parametrize("fault", ANSWERED, ids=lambda fault: fault.name)
async def test_fault_is_answered_as_it_says(client: httpx.AsyncClient, fault: Fault, of_host: bool) -> None:
    async with open_fleet(speed=100) as fleet:
        host = await fleet.evolution()
        channel = host.add("loja-01")
        if of_host:
            host.fault = fault
        else:
            channel.fault = fault
        answer = await ask(client, host)

    status, part = ANSWERED[fault]
    assert answer.status_code == status
    assert part in answer.content
    assert len(channel.probed) == 1


@pytest.mark.parametrize("fault", CUT, ids=lambda fault: fault.name)
async def test_fault_answers_nothing_as_it_says(fault: Fault) -> None:
    async with open_fleet() as fleet, caller(timeout=0.2) as client:
        host = await fleet.evolution()
        host.add("loja-01").fault = fault
        with pytest.raises(CUT[fault]):
            await ask(client, host)


async def test_headers_come_before_a_body_that_hangs() -> None:
    async with open_fleet() as fleet, caller(timeout=0.2) as client:
        host = await fleet.evolution()
        host.fault = Fault.HANG_BODY
        async with client.stream("GET", host.url) as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.ReadTimeout):
                await answer.aread()


async def test_huge_body_has_no_end(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        host.fault = Fault.HUGE
        size = 0
        async with client.stream("GET", host.url) as answer:
            async for chunk in answer.aiter_bytes():
                size += len(chunk)
                if size > 4_000_000:
                    break

    assert size > 4_000_000


async def test_slow_answer_takes_three_seconds_of_its_time(client: httpx.AsyncClient) -> None:
    async with open_fleet(speed=10) as fleet:
        host = await fleet.evolution()
        host.add("loja-01").fault = Fault.SLOW
        answer = await ask(client, host)

    assert answer.elapsed.total_seconds() >= 0.3


async def test_refusing_host_closes_its_port_and_opens_the_same_again(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        host.add("loja-01")
        for _ in range(3):
            host.fault = Fault.REFUSED
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", int(host.url.rpartition(":")[2]))
            host.fault = None
            async with caller() as fresh:
                assert (await ask(fresh, host)).status_code == 200


async def test_flipping_state_changes_from_ask_to_ask(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        host.add("loja-01").fault = Fault.FLIPPING
        words = [(await ask(client, host)).json()["instance"]["state"] for _ in range(6)]

    assert words in (["close", "connecting"] * 3, ["connecting", "close"] * 3)


async def test_channels_fault_wins_and_touches_no_other(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        host.add("loja-01").fault = Fault.SERVER_ERROR
        host.add("loja-02")
        headers = {"apikey": host.key}
        other = await client.get(f"{host.url}/instance/connectionState/loja-02", headers=headers)
        host.fault = Fault.UNAVAILABLE
        both = await ask(client, host)

    assert (other.status_code, both.status_code) == (200, 500)


async def test_fault_about_a_channel_leaves_the_version_readable(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        host.fault = Fault.NOT_FOUND
        found = await client.get(host.url)
        host.fault = Fault.UNAVAILABLE
        lost = await client.get(host.url)

    assert (found.status_code, lost.status_code) == (200, 503)


async def test_most_at_once_counts_requests_that_overlap() -> None:
    async with open_fleet() as fleet, caller(timeout=0.5) as client:
        host = await fleet.evolution()
        host.add("loja-01")
        for _ in range(3):
            await ask(client, host)
        assert host.most_at_once == 1

        host.fault = Fault.HANG
        await asyncio.gather(*(ask(client, host) for _ in range(7)), return_exceptions=True)
        assert host.most_at_once == 7
