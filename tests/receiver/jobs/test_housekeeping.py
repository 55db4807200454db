"""Housekeeping: a step that is refused keeps no other from being done."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import asyncpg
import pytest

from db.connection.types import Connection
from db.vault import Vault
from receiver.jobs.housekeeping import keep, keep_at_start
from tests.receiver.test_secrets import lines  # noqa: F401
from tests.support.service import KEY, zapwatch

OLD = "insert into zapwatch_checks (total, started_at, finished_at) values (0, $1, $1)"


async def refuse_to_forget_bodies(admin: Connection) -> None:
    """Have the database refuse the second step, by a trigger of somebody else."""
    await admin.execute(
        "create function refuse() returns trigger language plpgsql as "
        "$$ begin raise exception 'no, +5511999990000'; end $$;"
        "create trigger refuse before delete on zapwatch_quarantine for each statement "
        "execute function refuse()"
    )


async def test_lock_that_is_held_keeps_no_service_from_starting(
    connection: Connection, admin: Connection
) -> None:
    await connection.execute("set lock_timeout = '10ms'")

    async with admin.transaction():
        await admin.execute("lock table zapwatch_quarantine in access exclusive mode")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await keep(connection, Vault([KEY]))
        await keep_at_start(connection, Vault([KEY]))


async def test_step_that_is_refused_keeps_no_other_from_being_done(
    connection: Connection, admin: Connection
) -> None:
    await refuse_to_forget_bodies(admin)
    await connection.execute(OLD, datetime.now(UTC) - timedelta(days=3))

    with pytest.raises(ExceptionGroup) as failed:
        await keep(connection, Vault([KEY]))

    assert [type(error) for error in failed.value.exceptions] == [asyncpg.RaiseError]
    assert await connection.fetchval("select count(*) from zapwatch_checks") == 0


async def test_service_starts_although_housekeeping_is_refused(
    dsn: str,
    connection: Connection,
    admin: Connection,
    lines: StringIO,  # noqa: F811
) -> None:
    await refuse_to_forget_bodies(admin)

    async with zapwatch(dsn) as z:
        assert (await z.client.get("/readyz")).status_code == 200

    assert "housekeeping did not finish" in lines.getvalue()
    assert "asyncpg.exceptions.RaiseError" in lines.getvalue()
    assert "5511999990000" not in lines.getvalue()
