"""Who may read and do what: members, administrators, other applications, and our own forgetful queries."""

import json
from uuid import UUID, uuid4

import asyncpg
import pytest

from db.connection.types import Connection
from tests.db.conftest import add_channel, add_tenant

RPCS = [
    "whatsapp_heartbeat_open_incident(uuid, text, text, jsonb)",
    "whatsapp_heartbeat_resolve_open_incidents(uuid)",
    "whatsapp_heartbeat_mark_notified(uuid)",
]
PUBLIC = [
    "tenants",
    "tenant_members",
    "notification_channels",
    "notifications",
    "whatsapp_connection_incidents",
]
# A row for tenant $1 and its channel $2 in each of our tables that has a tenant.
SCOPED = {
    "zapwatch_channels": """
        insert into zapwatch_channels (tenant_id, channel_id, provider) values ($1, $2, 'wapi')""",
    "zapwatch_states": """
        insert into zapwatch_states (tenant_id, channel_id) values ($1, $2)
        on conflict (channel_id) do update set version = 1""",
    "zapwatch_tokens": """
        insert into zapwatch_tokens (hash, kind, tenant_id, channel_id)
        values (sha256(uuid_send($2)), 'channel', $1, $2)""",
    "zapwatch_events": """
        insert into zapwatch_events
          (tenant_id, channel_id, source, name, received_at, last_received_at, state)
        values ($1, $2, 'probe', 'probe', now(), now(), 'open')""",
    "zapwatch_alerts": """
        insert into zapwatch_alerts (incident_id, tenant_id, channel_id, kind)
        select id, tenant_id, channel_id, 'resolved' from whatsapp_connection_incidents
        where (tenant_id, channel_id) = ($1, $2)""",
    "zapwatch_quarantine": """
        insert into zapwatch_quarantine (tenant_id, token_hash, provider, body, size, problem)
        values ($1, sha256(uuid_send($2)), 'wapi', '', 0, 'empty')""",
    "zapwatch_snapshots": """
        insert into zapwatch_snapshots (tenant_id, channel_id, event_id, taken_at)
        values ($1, $2, 0, now())""",
    "zapwatch_checks": """
        insert into zapwatch_checks (tenant_id, channel_id, total, started_at) values ($1, $2, 1, now())""",
    "zapwatch_slots": """
        insert into zapwatch_slots (tenant_id, channel_id, state, checked_at)
        values ($1, $2, 'set', now())""",
    "zapwatch_affected_channels": """
        with gateway as (
          insert into zapwatch_gateways (provider, base_url) values ('wapi', gen_random_uuid()::text)
          returning id
        ), incident as (
          insert into zapwatch_gateway_incidents (gateway_id, cause, started_at, opened_at)
          select id, 'unreachable', now(), now() from gateway
          returning id)
        insert into zapwatch_affected_channels (gateway_incident_id, tenant_id, channel_id)
        select id, $1, $2 from incident""",
    "zapwatch_qrs": """
        insert into zapwatch_qrs (tenant_id, channel_id, asked_at) values ($1, $2, now())""",
    "zapwatch_recoveries": """
        insert into zapwatch_recoveries (tenant_id, channel_id, gateway_id, asked_by, began_at)
        values ($1, $2, gen_random_uuid(), 'clock', now())""",
    "zapwatch_suspicions": """
        insert into zapwatch_suspicions (tenant_id, channel_id) values ($1, $2)""",
    "zapwatch_destinations": """
        insert into zapwatch_destinations (tenant_id, kind, config)
        select tenant_id, 'webhook', '' from notification_channels where (tenant_id, id) = ($1, $2)""",
    "zapwatch_maintenance": """
        insert into zapwatch_maintenance (tenant_id, channel_id, ends_at)
        values ($1, $2, now() + interval '1 hour')""",
    "zapwatch_messages": """
        with destination as (
          insert into zapwatch_destinations (tenant_id, kind, config)
          select tenant_id, 'webhook', '' from notification_channels where (tenant_id, id) = ($1, $2)
          returning id, tenant_id)
        insert into zapwatch_messages (destination_id, tenant_id, due_at)
        select id, tenant_id, now() from destination""",
    "zapwatch_decisions": """
        insert into zapwatch_decisions (tenant_id, event, is_sent, why)
        select tenant_id, 'incident.opened', false, 'nobody' from notification_channels
        where (tenant_id, id) = ($1, $2)""",
    "zapwatch_changes": """
        insert into zapwatch_changes (tenant_id, channel_id, event)
        values ($1, $2, 'channel.state_changed')""",
    "zapwatch_attempts": """
        with destination as (
          insert into zapwatch_destinations (tenant_id, kind, config)
          select tenant_id, 'webhook', '' from notification_channels where (tenant_id, id) = ($1, $2)
          returning id, tenant_id
        ), message as (
          insert into zapwatch_messages (destination_id, tenant_id, due_at)
          select id, tenant_id, now() from destination
          returning id, destination_id, tenant_id)
        insert into zapwatch_attempts (message_id, destination_id, tenant_id, at, took_ms, is_ok)
        select id, destination_id, tenant_id, now(), 1, true from message""",
}
UNSCOPED = {
    "zapwatch_gateways": """
        insert into zapwatch_gateways (provider, base_url) values ('wapi', 'https://wapi.test')""",
    "zapwatch_migrations": "insert into zapwatch_migrations (name, checksum) values ('x', 'x')",
    "zapwatch_unknown_instances": """
        with gateway as (
          insert into zapwatch_gateways (provider, base_url) values ('wapi', 'https://w.test')
          returning id)
        insert into zapwatch_unknown_instances (gateway_id, instance) select id, 'loja' from gateway""",
    "zapwatch_gateway_incidents": """
        with gateway as (
          insert into zapwatch_gateways (provider, base_url) values ('wapi', 'https://i.test')
          returning id)
        insert into zapwatch_gateway_incidents (gateway_id, cause, started_at, opened_at)
        select id, 'unreachable', now(), now() from gateway""",
    "zapwatch_failing_loops": """
        insert into zapwatch_failing_loops
        values (gen_random_uuid(), 'versions', 'host', now(), now(), 'KeyError')""",
}


async def act_as(admin: Connection, role: str, claims: dict[str, object]) -> None:
    """Go on as the role with these claims in the request's JWT, as PostgREST does."""
    await admin.execute("select set_config('request.jwt.claims', $1, false)", json.dumps(claims))
    await admin.execute(f"set role {role}")


async def open_incident(connection: Connection, tenant: UUID) -> UUID:
    channel = await add_channel(connection, tenant)
    return UUID(
        str(await connection.fetchval("select whatsapp_heartbeat_open_incident($1, 'error')", channel))
    )


async def add_member(connection: Connection, tenant: UUID, status: str = "active") -> UUID:
    user = uuid4()
    insert = "insert into tenant_members (tenant_id, user_id, status) values ($1, $2, $3)"
    await connection.execute(insert, tenant, user, status)
    return user


async def visible_incidents(admin: Connection) -> set[UUID]:
    return {row["id"] for row in await admin.fetch("select id from whatsapp_connection_incidents")}


@pytest.mark.parametrize("function", RPCS)
async def test_only_service_role_may_call_the_public_functions(connection: Connection, function: str) -> None:
    may = "select has_function_privilege($1, $2, 'execute')"
    grantees = (
        "select count(*) from pg_proc, aclexplode(proacl) where oid = $1::text::regprocedure and grantee = 0"
    )

    assert await connection.fetchval(may, "service_role", function)
    assert not await connection.fetchval(may, "authenticated", function)
    assert await connection.fetchval(grantees, function) == 0  # 0: public


async def test_the_public_functions_run_as_owner_with_a_pinned_path(connection: Connection) -> None:
    query = """
        select prosecdef and proconfig::text like '%search_path=%' from pg_proc
        where oid = $1::text::regprocedure"""

    assert [await connection.fetchval(query, function) for function in RPCS] == [True, True, True]


async def test_service_role_works_through_the_public_functions(
    connection: Connection, admin: Connection
) -> None:
    channel = await add_channel(connection)
    await act_as(admin, "service_role", {})

    opened = await admin.fetchval("select whatsapp_heartbeat_open_incident($1, 'error')", channel)
    await admin.fetchval("select whatsapp_heartbeat_mark_notified($1)", opened)
    resolved = await admin.fetchval("select whatsapp_heartbeat_resolve_open_incidents($1)", channel)

    assert resolved == 1
    assert await connection.fetchval("select count(*) from zapwatch_alerts") == 2
    assert await connection.fetchval("select count(*) from zapwatch_events") == 2


async def test_service_role_writes_incidents(connection: Connection, admin: Connection) -> None:
    opened = await open_incident(connection, await add_tenant(connection))
    await act_as(admin, "service_role", {})

    await admin.execute(
        "update whatsapp_connection_incidents set acknowledged_at = now() where id = $1", opened
    )

    acknowledged = "select acknowledged_at is not null from whatsapp_connection_incidents"
    assert await connection.fetchval(acknowledged)


@pytest.mark.parametrize("role", ["authenticated", "service_role"])
async def test_nobody_else_reaches_our_own_tables_and_functions(connection: Connection, role: str) -> None:
    tables = await connection.fetch(
        "select relname from pg_class where relname like 'zapwatch\\_%' and relkind = 'r' "
        "and has_table_privilege($1, oid, 'select, insert, update, delete, truncate')",
        role,
    )
    functions = await connection.fetch(
        "select proname from pg_proc where proname like 'zapwatch\\_%' "
        "and has_function_privilege($1, oid, 'execute')",
        role,
    )

    assert tables == []
    assert [row["proname"] for row in functions] == ["zapwatch_member_tenants"]


@pytest.mark.parametrize("table", [*SCOPED, *UNSCOPED])
async def test_a_grant_made_by_mistake_shows_no_row_of_ours(
    connection: Connection, admin: Connection, table: str
) -> None:
    tenant = await add_tenant(connection)
    await open_incident(connection, tenant)
    channel = await connection.fetchval("select id from notification_channels")
    await connection.execute({**SCOPED, **UNSCOPED}[table], *((tenant, channel) if table in SCOPED else ()))
    await connection.execute("grant all on all tables in schema public to authenticated")
    await connection.execute("grant execute on all functions in schema public to authenticated")
    user = await add_member(connection, tenant)
    await act_as(admin, "authenticated", {"sub": str(user)})

    assert await admin.fetchval(f"select count(*) from {table}") == 0


async def test_a_member_reads_the_incidents_of_its_tenants_only(
    connection: Connection, admin: Connection
) -> None:
    ours, theirs = await add_tenant(connection), await add_tenant(connection)
    opened = await open_incident(connection, ours)
    await open_incident(connection, theirs)
    await act_as(admin, "authenticated", {"sub": str(await add_member(connection, ours))})

    assert await visible_incidents(admin) == {opened}


@pytest.mark.parametrize("status", ["invited", "suspended"])
async def test_a_member_who_is_not_active_reads_nothing(
    connection: Connection, admin: Connection, status: str
) -> None:
    tenant = await add_tenant(connection)
    await open_incident(connection, tenant)
    await act_as(admin, "authenticated", {"sub": str(await add_member(connection, tenant, status))})

    assert await visible_incidents(admin) == set()


async def test_a_request_without_a_user_reads_nothing(connection: Connection, admin: Connection) -> None:
    await open_incident(connection, await add_tenant(connection))
    await act_as(admin, "authenticated", {})

    for table in PUBLIC:
        assert await admin.fetchval(f"select count(*) from {table}") == 0


@pytest.mark.parametrize(
    ("claims", "is_admin"),
    [
        ({"role": "saas_admin"}, True),
        ({"role": "authenticated", "app_metadata": {"role": "saas_admin"}}, True),
        ({"role": "authenticated", "user_metadata": {"role": "saas_admin"}}, False),
        ({"role": "authenticated"}, False),
        ({}, False),
    ],
)
async def test_an_administrator_reads_every_tenants_incidents(
    connection: Connection, admin: Connection, claims: dict[str, object], is_admin: bool
) -> None:
    opened = {await open_incident(connection, await add_tenant(connection)) for _ in range(2)}
    await act_as(admin, "authenticated", claims)

    assert await visible_incidents(admin) == (opened if is_admin else set())


async def test_a_member_writes_no_incident(connection: Connection, admin: Connection) -> None:
    tenant = await add_tenant(connection)
    await open_incident(connection, tenant)
    await act_as(admin, "authenticated", {"sub": str(await add_member(connection, tenant))})

    for statement in ("update whatsapp_connection_incidents set kind = 'error'", "delete from tenants"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.execute(statement)


async def test_members_read_what_a_fresh_database_holds_of_their_tenant(
    connection: Connection, admin: Connection
) -> None:
    ours, theirs = await add_tenant(connection), await add_tenant(connection)
    user, stranger = await add_member(connection, ours), await add_member(connection, theirs)
    for tenant in (ours, theirs):
        await add_channel(connection, tenant)
    notify = "insert into notifications (tenant_id, owner_id, type) values ($1, $2, 'system_alert')"
    for owner in (None, user, stranger):
        await connection.execute(notify, ours, owner)
    await act_as(admin, "authenticated", {"sub": str(user)})

    assert [row["id"] for row in await admin.fetch("select id from tenants")] == [ours]
    for table in ("tenant_members", "notification_channels"):
        assert [row["tenant_id"] for row in await admin.fetch(f"select tenant_id from {table}")] == [ours]
    owners = {row["owner_id"] for row in await admin.fetch("select owner_id from notifications")}
    assert owners == {None, user}


async def test_every_table_of_ours_is_forced_and_tried_here(connection: Connection) -> None:
    rows = await connection.fetch(
        "select relname, relrowsecurity and relforcerowsecurity as forced, exists (select from pg_attribute "
        "where attrelid = pg_class.oid and attname = 'tenant_id' and not attisdropped) as has_tenant "
        "from pg_class where relname like 'zapwatch\\_%' and relkind = 'r'"
    )

    assert all(row["forced"] for row in rows)
    assert {row["relname"] for row in rows if row["has_tenant"]} == SCOPED.keys()
    assert {row["relname"] for row in rows if not row["has_tenant"]} == UNSCOPED.keys()


@pytest.mark.parametrize("table", list(SCOPED))
async def test_a_query_without_where_sees_one_tenant(connection: Connection, table: str) -> None:
    tenants = [await add_tenant(connection) for _ in range(2)]
    for tenant in tenants:
        await open_incident(connection, tenant)
        channel = await connection.fetchval(
            "select id from notification_channels where tenant_id = $1", tenant
        )
        await connection.execute(SCOPED[table], tenant, channel)
    seen = f"select array_agg(distinct tenant_id) from {table}"

    assert set(await connection.fetchval(seen)) == set(tenants)
    async with connection.transaction():
        await connection.execute("select set_config('zapwatch.tenant_id', $1, true)", str(tenants[0]))
        assert await connection.fetchval(seen) == [tenants[0]]
        deleted = await connection.execute(f"delete from {table}")
        assert deleted != "DELETE 0"
    assert await connection.fetchval(seen) == [tenants[1]]


@pytest.mark.parametrize("table", list(SCOPED))
async def test_a_limited_transaction_writes_no_other_tenants_row(connection: Connection, table: str) -> None:
    tenant = await add_tenant(connection)
    await open_incident(connection, tenant)
    channel = await connection.fetchval("select id from notification_channels")
    await connection.execute("select set_config('zapwatch.tenant_id', $1, false)", str(uuid4()))

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await connection.execute(SCOPED[table], tenant, channel)


@pytest.mark.parametrize("table", list(UNSCOPED))
async def test_what_belongs_to_no_tenant_is_hidden_from_a_limited_transaction(
    connection: Connection, table: str
) -> None:
    await connection.execute(UNSCOPED[table])
    seen = f"select count(*) from {table}"
    before = await connection.fetchval(seen)

    await connection.execute("select set_config('zapwatch.tenant_id', $1, false)", str(uuid4()))

    assert before > 0
    assert await connection.fetchval(seen) == 0


async def test_rows_stay_visible_when_everything_gets_another_owner(
    connection: Connection, admin: Connection, clinic: str
) -> None:
    await open_incident(connection, await add_tenant(connection))
    objects = await admin.fetch("""
        select 'table ' || oid::regclass as name from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r'
        union all select 'function ' || oid::regprocedure from pg_proc
        where pronamespace = 'public'::regnamespace""")
    for row in objects:
        await admin.execute(f"alter {row['name']} owner to {clinic}")

    await admin.execute(f"set role {clinic}")

    assert await admin.fetchval("select count(*) from zapwatch_states") == 1
    await act_as(connection, "zapwatch", {})
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.fetchval("select count(*) from zapwatch_states")
