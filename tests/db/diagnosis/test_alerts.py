"""What the doctor finds about telling people: nobody there, nothing sent, nothing arriving."""

from collections.abc import Iterable
from uuid import UUID

import pytest

from db import diagnosis
from db.alerts.destinations import seal_config
from db.connection.types import Connection
from db.diagnosis import Finding
from db.registry.channels import ChannelSpec, register_channel
from db.vault import Vault

VAULT = Vault([bytes(32)])
OPERATORS = "insert into zapwatch_destinations (kind, config) values ('webhook', '')"


def codes(findings: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in findings]


@pytest.fixture
async def tenant(connection: Connection) -> UUID:
    """A tenant with a channel that is watched."""
    await register_channel(connection, VAULT, ChannelSpec(provider="wapi", instance="loja", api_key="k"))
    found: UUID = await connection.fetchval("select id from tenants")
    return found


async def add_member(connection: Connection, tenant: UUID, role: str, status: str = "active") -> None:
    insert = (
        "insert into tenant_members (tenant_id, user_id, role, status) values ($1, gen_random_uuid(), $2, $3)"
    )
    await connection.execute(insert, tenant, role, status)


async def add_destination(connection: Connection, tenant: UUID, kind: str, config: bytes = b"") -> UUID:
    insert = "insert into zapwatch_destinations (tenant_id, kind, config) values ($1, $2, $3) returning id"
    found: UUID = await connection.fetchval(insert, tenant, kind, config)
    return found


async def test_incidents_that_nobody_would_hear_of_are_a_problem(
    connection: Connection, tenant: UUID
) -> None:
    found = await diagnosis.check_recipients(connection, VAULT)

    assert codes(found) == ["nobody_told", "operators_not_told"]
    assert "default" in found[0].what


async def test_one_that_only_operators_hear_of_is_a_note(connection: Connection, tenant: UUID) -> None:
    await connection.execute(OPERATORS)

    assert codes(await diagnosis.check_recipients(connection, VAULT)) == ["tenant_not_told"]


@pytest.mark.parametrize("role", ["clinic_admin", "tenant_admin"])
async def test_an_active_admin_is_told_in_the_application(
    connection: Connection, tenant: UUID, role: str
) -> None:
    await add_member(connection, tenant, role)

    assert codes(await diagnosis.check_recipients(connection, VAULT)) == ["operators_not_told"]


async def test_nobody_is_told_where_only_others_are_members(connection: Connection, tenant: UUID) -> None:
    await add_member(connection, tenant, "member")
    await add_member(connection, tenant, "tenant_admin", "suspended")

    assert "nobody_told" in codes(await diagnosis.check_recipients(connection, VAULT))


async def test_every_member_is_told_where_the_tenant_wants_it(connection: Connection, tenant: UUID) -> None:
    await add_member(connection, tenant, "member")
    destination = await add_destination(connection, tenant, "in_app")
    for_all = seal_config(VAULT, destination, {"recipients": "all"})
    await connection.execute("update zapwatch_destinations set config = $1", for_all)

    assert codes(await diagnosis.check_recipients(connection, VAULT)) == ["operators_not_told"]
    assert "nobody_told" in codes(await diagnosis.check_recipients(connection, Vault([bytes(range(32))])))


async def test_a_destination_that_is_off_tells_nobody(connection: Connection, tenant: UUID) -> None:
    await add_destination(connection, tenant, "webhook")
    assert codes(await diagnosis.check_recipients(connection, VAULT)) == ["operators_not_told"]

    await connection.execute("update zapwatch_destinations set disabled_at = now(), disabled_why = 'gone'")

    assert "nobody_told" in codes(await diagnosis.check_recipients(connection, VAULT))


async def test_a_tenant_without_channels_that_are_watched_needs_nobody(
    connection: Connection, tenant: UUID
) -> None:
    await connection.execute("update zapwatch_channels set paused_at = now()")

    assert codes(await diagnosis.check_recipients(connection, VAULT)) == ["operators_not_told"]


async def test_alerts_and_messages_that_wait_for_minutes_are_a_problem(
    connection: Connection, tenant: UUID
) -> None:
    channel = await connection.fetchval("select channel_id from zapwatch_channels")
    await connection.fetchval("select whatsapp_heartbeat_open_incident($1, 'error')", channel)
    destination = await add_destination(connection, tenant, "webhook")
    insert = "insert into zapwatch_messages (destination_id, due_at) values ($1, now())"
    await connection.execute(insert, destination)
    assert await diagnosis.check_alerts(connection) == []

    for table in ("zapwatch_alerts", "zapwatch_messages"):
        await connection.execute(f"update {table} set due_at = now() - interval '3 minutes'")

    assert codes(await diagnosis.check_alerts(connection)) == ["late_alerts", "late_messages"]


async def test_destinations_that_fail_or_ended_are_named_with_their_owner(
    connection: Connection, tenant: UUID
) -> None:
    for state in ("failing_since = now()", "disabled_at = now(), disabled_why = 'gone'"):
        destination = await add_destination(connection, tenant, "webhook")
        await connection.execute(f"update zapwatch_destinations set {state} where id = $1", destination)
    await connection.execute(OPERATORS)
    await connection.execute(
        "update zapwatch_destinations set disabled_at = now(), disabled_why = 'operator'"
        " where tenant_id is null"
    )

    ended, failing, off = await diagnosis.check_destinations(connection)

    assert (ended.code, failing.code, off.code) == (
        "destination_ended",
        "destination_failing",
        "destination_off",
    )
    assert "of default: gone" in ended.what
    assert "of default since 20" in failing.what
    assert "of operators" in off.what


async def test_maintenance_that_runs_is_named_by_what_it_is_for(connection: Connection, tenant: UUID) -> None:
    channel = await connection.fetchval("select channel_id from zapwatch_channels")
    gateway = await connection.fetchval("select id from zapwatch_gateways")
    insert = """
        insert into zapwatch_maintenance (tenant_id, channel_id, gateway_id, starts_at, ends_at)
        values ($1, $2, $3, now() + $4::text::interval, now() + interval '2 hours')"""
    assert await diagnosis.check_maintenance(connection) == []
    for subject in ((tenant, channel, None), (None, None, gateway), (tenant, None, None), (None, None, None)):
        await connection.execute(insert, *subject, "-1 minute")
    await connection.execute(insert, None, None, None, "1 hour")

    [found] = await diagnosis.check_maintenance(connection)

    assert "(4)" in found.what
    for words in (
        "the channel loja",
        "the gateway https://api.w-api.app",
        "the tenant default",
        "everything",
    ):
        assert words in found.what
