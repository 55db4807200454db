"""A receiver and a caller for each test of the sandbox."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.receiver.sandbox.inbox import Inbox, caller, open_inbox


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    """A receiver of webhooks."""
    async with open_inbox() as opened:
        yield opened


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who asks gateways."""
    async with caller() as opened:
        yield opened
