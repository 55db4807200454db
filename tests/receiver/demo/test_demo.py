"""What a newcomer sees of `zapwatch demo`, and what is left of it afterwards: nothing."""

import asyncio
import os
import re
import shlex
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from receiver.demo.scene import DUEL, DUEL_GAP, FIRST_REST, REST, SETTLED
from statemachine.policy.flapping import BLINK_WINDOW, BLINKS, FLAP_WINDOW, FLAPS, STABLE_AFTER
from tests.conftest import reachable_folder

ENDS_WITHIN = 15
PREPARES_WITHIN = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the demo puts what is temporary."""
    with reachable_folder() as path:
        yield path


@asynccontextmanager
async def demo(folder: Path, *options: str, **environ: str) -> AsyncIterator[Process]:
    """Yield the demo, running on a free port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "receiver", "demo", *options, stdout=PIPE, stderr=PIPE,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(folder), "ZAPWATCH_PORT": "0", **environ},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def line_with(process: Process, words: str) -> str:
    """Return the next line that holds these words."""
    assert process.stdout is not None
    async with asyncio.timeout(PREPARES_WITHIN):
        while line := (await process.stdout.readline()).decode():
            if words in line:
                return line
    raise AssertionError(f"it ended without saying {words!r}")


async def ended(process: Process, within: float = ENDS_WITHIN) -> tuple[int | None, str, str]:
    """Return exit code, the rest of its output, and its errors."""
    async with asyncio.timeout(within):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def pasted(line: str) -> str:
    """Return what a printed command says."""
    words = shlex.split(line)
    if words[0] == "curl":
        name, _, value = words[words.index("-H") + 1].partition(": ")
        url = next(word for word in words if word.startswith("http"))
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(url, headers={name: value})).raise_for_status().text
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


def running_on(folder: Path) -> list[str]:
    """Return the commands of all processes that name something in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended just now
        if f"{folder}/" in command:
            found.append(command)
    return found


async def test_demo_shows_incidents_that_its_own_lines_lead_to(folder: Path) -> None:
    async with demo(folder) as process:
        docs = (await line_with(process, "/docs")).split()[-1]
        incidents, state, channels = [
            (await line_with(process, words)).split("  ")[-1].strip()
            for words in ("open incidents ", "/state", "all channels ")
        ]

        opened = await line_with(process, "INCIDENT: ")
        listed, shown, table = await pasted(incidents), await pasted(state), await pasted(channels)
        page = await pasted(f"curl -s {docs} -H 'Accept: text/html'")
        served_from = running_on(folder)
        resolved = await line_with(process, "resolved after")
        process.send_signal(signal.SIGINT)
        code, _, errors = await ended(process)

    assert '"resolved_at":null' in listed
    assert '"name":"Loja Centro"' in shown
    assert "Lembretes" in table
    assert "openapi" in page
    assert re.match(r"\d\d:\d\d  .*INCIDENT: \w+ \(\w+\)$", opened)
    assert re.match(r"\d\d:\d\d  .*resolved after \d+ s$", resolved)
    assert (code, errors) == (0, "")
    assert served_from
    assert running_on(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_demo_that_is_stopped_while_it_starts_leaves_nothing(
    folder: Path, number: signal.Signals
) -> None:
    async with demo(folder) as process:
        await line_with(process, "Making a database")

        process.send_signal(number)
        code, output, errors = await ended(process)

    assert (code, errors) == (0, "")
    assert "Ended" in output
    assert running_on(folder) == []
    assert list(folder.iterdir()) == []


async def test_demo_touches_no_database_and_shows_no_token_of_yours(folder: Path) -> None:
    mine = {
        "ZAPWATCH_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/mine",
        "ZAPWATCH_OPERATOR_TOKEN": "a-real-token-of-an-operator",
        "ZAPWATCH_WORKERS": "wrong, and of no matter here",
    }
    async with demo(folder, "--seconds", "1", **mine) as process:
        code, output, errors = await ended(process, PREPARES_WITHIN)

    assert "ZAPWATCH_DATABASE_URL is left alone" in output
    assert "all channels " in output
    assert "a-real-token" not in output
    assert (code, errors) == (0, "")


async def test_demo_says_when_its_port_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with demo(folder, "--port", str(taken.getsockname()[1])) as process:
            code, output, errors = await ended(process)

    assert code == 1
    assert "The demo can't run: " in errors
    assert "Traceback" not in output + errors


def test_duel_of_two_systems_is_flapping() -> None:
    counted = DUEL * DUEL_GAP

    assert DUEL >= BLINKS
    assert counted < BLINK_WINDOW.total_seconds()


def test_channels_that_rest_between_their_troubles_do_not_flap() -> None:
    (first, _), (later, _) = FIRST_REST, REST

    assert first + (FLAPS - 2) * later > FLAP_WINDOW.total_seconds()
    assert first + SETTLED > STABLE_AFTER.total_seconds()
