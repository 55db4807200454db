"""What everybody is told of gateways in trouble, from outside: the scenarios of `faults`, quickly."""

from pathlib import Path
from uuid import UUID

import pytest

from db.connection.types import Connection
from db.registry.tokens import create_operator_token
from faults.line import Line
from faults.trouble import losses, neighbours, own_line, reborn, silence, unpaired
from faults.trouble.town import open_town
from receiver.sandbox import Fault

pytestmark = pytest.mark.timeout(120)


def assert_held(line: Line) -> None:
    broken = [words for words in line.measured.split("; ") if words.startswith("BROKEN")]
    assert line.held, "\n".join(broken)


async def test_channel_that_hangs_delays_no_other(dsn: str, tmp_path: Path) -> None:
    async with open_town(dsn, tmp_path, speed=20) as town:
        assert_held(await neighbours.one_hangs(town))


async def test_invented_losses_neither_delay_nor_explain_anothers(
    dsn: str, tmp_path: Path, connection: Connection
) -> None:
    async with open_town(dsn, tmp_path, speed=20) as town:
        rogue = await town.tenant("Rogue", 1, auto_recovery=False)
        token = await create_operator_token(connection, "rogue", UUID(rogue))
        assert_held(await neighbours.inventions(town, token))


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.UNAVAILABLE])
async def test_silent_host_is_told_once_to_everybody_it_concerns(
    dsn: str, tmp_path: Path, fault: Fault
) -> None:
    async with open_town(dsn, tmp_path, speed=20) as town:
        assert_held(await silence.play(town, fault))


async def test_loss_of_many_channels_and_its_end_are_told_by_their_cause(dsn: str, tmp_path: Path) -> None:
    async with open_town(dsn, tmp_path, speed=20) as town:
        assert_held(await losses.play(town))


async def test_never_paired_instances_are_imported_in_silence(dsn: str, tmp_path: Path) -> None:
    async with open_town(dsn, tmp_path, speed=20) as town:
        assert_held(await unpaired.play(town, dead=40))


async def test_own_line_that_is_cut_is_blamed_on_nobody(dsn: str, tmp_path: Path) -> None:
    async with open_town(dsn, tmp_path, speed=20) as town:
        assert_held(await own_line.play(town))


async def test_host_that_is_up_again_with_us_is_told_to_nobody(dsn: str, tmp_path: Path) -> None:
    async with open_town(dsn, tmp_path, speed=60) as town:
        assert_held(await reborn.play(town, away=360, verdict_first=False))
