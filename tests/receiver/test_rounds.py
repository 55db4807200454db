"""Work that comes round beside the service's own: what the database refuses to it ends nothing."""

import pytest

from db.connections import Connection
from tests.factories import Evolution
from tests.receiver.service import zapwatch


async def test_statement_that_is_refused_to_work_beside_does_not_end_the_service(
    dsn: str, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()

        await admin.execute(
            "update zapwatch_gateways set base_url = 'http://127.0.0.1:9', version_due_at = 'epoch'; "
            "alter table zapwatch_gateways add constraint refused check (version_due_at = 'epoch') not valid"
        )

        async def said() -> str:
            return caplog.text

        await z.until(said, lambda text: "refuses what is done for versions: CheckViolationError" in text)
        assert await z.post(channel, Evolution().update("open")) == 204
