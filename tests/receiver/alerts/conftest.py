"""A sink for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.receiver.alerts.sink import Sink, open_sink


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A sink that answers 200."""
    async with open_sink() as opened:
        yield opened
