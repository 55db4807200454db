"""The fleet as a whole: its time, its end, and that it shares no code with the service."""

import ast
import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import receiver.sandbox
from receiver.sandbox import Fault, open_fleet
from receiver.sandbox.host import Host
from tests.receiver.sandbox.inbox import Inbox, caller
from tests.support.eventually import eventually

SOURCES = sorted(Path(receiver.sandbox.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_sandbox_shares_no_code_with_the_service(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")

    ours = {name for name in imported if name.partition(".")[0] in ("receiver", "db", "statemachine")}
    assert {name for name in ours if not name.startswith("receiver.sandbox")} == set()


async def test_speed_compresses_every_pause(inbox: Inbox) -> None:
    began = time.monotonic()
    async with open_fleet(speed=600) as fleet, asyncio.timeout(20):
        channel = (await fleet.evolution()).add("loja-01", state="close")
        channel.webhook = inbox.url
        await fleet.pause(60)
        await channel.show_qr(10)
        await channel.said()

    taken = time.monotonic() - began
    assert 0.85 <= taken < 8
    assert len(inbox.letters) == 14


async def test_everything_ends_with_the_fleet(inbox: Inbox) -> None:
    before = asyncio.all_tasks()
    inbox.statuses = [500] * 100
    async with caller() as client:
        async with open_fleet() as fleet:
            evolution = await fleet.evolution()
            hosts: list[Host[Any]] = [evolution, await fleet.wapi(), await fleet.twilio()]
            channel = evolution.add("loja-01")
            channel.webhook = inbox.url
            channel.drop(None, pace=50)
            for host in hosts:
                host.fault = Fault.HANG
            asked = [asyncio.create_task(client.get(host.url)) for host in hosts]
            await inbox.until(lambda letters: len(letters) > 5)
            await eventually(lambda: all(host.most_at_once for host in hosts))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        letters = len(inbox.letters)

    assert all(isinstance(answer, httpx.TransportError) for answer in answers)
    assert {task for task in asyncio.all_tasks() - before if "sandbox" in repr(task.get_coro())} == set()
    for host in hosts:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", httpx.URL(host.url).port)
    assert len(inbox.letters) == letters


async def test_end_of_a_refusing_host_gives_its_port_back() -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        host.fault = Fault.REFUSED
        port = httpx.URL(host.url).port

    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    server.close()
    await server.wait_closed()


async def test_what_goes_wrong_inside_comes_out_at_the_end() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with open_fleet() as fleet:
            await asyncio.wait([fleet.spawn(fail())])


async def test_what_goes_wrong_outside_is_what_comes_out() -> None:
    async def fail() -> None:
        async with open_fleet() as fleet:
            (await fleet.evolution()).add("loja-01").drop(None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_hosts_have_ports_of_their_own_and_names_are_taken_once() -> None:
    async with open_fleet() as fleet:
        one, other = await fleet.evolution(), await fleet.evolution()
        one.add("loja-01")
        other.add("loja-01")

        assert one.url != other.url
        with pytest.raises(ValueError, match="loja-01"):
            one.add("loja-01")


async def test_qr_instance_shows_its_first_qr_to_an_address_set_right_after(inbox: Inbox) -> None:
    async with open_fleet(speed=10) as fleet:
        channel = (await fleet.evolution()).add("loja-01", state="qr")
        channel.webhook = inbox.url
        letters = await inbox.until(len)

        assert "qrcode" in letters[0].document["data"]
        assert channel.state == "connecting"
