"""Root's own folder is no obstacle to a newcomer, and nobody's permissions change."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.embedded.data_dir import relocate
from db.embedded.server import run_embedded
from tests.conftest import connected, reachable_folder


@pytest.fixture
def private() -> Iterator[Path]:
    """A folder that only its owner may enter."""
    with tempfile.TemporaryDirectory(prefix="zapwatch-test-") as folder:
        yield Path(folder)


async def test_data_folder_in_a_private_folder_works_whoever_we_are(private: Path) -> None:
    with reachable_folder() as fallbacks:
        data_dir = private / ".zapwatch"

        relocate(data_dir, fallbacks)

        async with run_embedded(data_dir) as embedded, connected(embedded.dsn) as connection:
            assert await connection.fetchval("select true")
        assert data_dir.is_symlink() == (os.geteuid() == 0)
        assert private.stat().st_mode & 0o777 == 0o700


def test_folder_that_can_be_reached_stays_where_it_is() -> None:
    with reachable_folder() as folder, reachable_folder() as fallbacks:
        relocate(folder / ".zapwatch", fallbacks)

        assert not (folder / ".zapwatch").is_symlink()
        assert list(fallbacks.iterdir()) == []


def test_folder_that_exists_is_never_replaced(private: Path) -> None:
    with reachable_folder() as fallbacks:
        (private / ".zapwatch").mkdir()

        relocate(private / ".zapwatch", fallbacks)

        assert not (private / ".zapwatch").is_symlink()
