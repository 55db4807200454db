"""Another application's database is adopted: added to, widened, and otherwise as it was."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from db.connection.types import Connection
from db.migrate import MigrationError, migrate
from tests.conftest import Server, connected

MIGRATIONS = Path(__file__).parents[2] / "db" / "migrations"

TENANT = "00000000-0000-4000-8000-000000000001"
CHANNEL = "00000000-0000-4000-8000-0000000000c1"
MEMBER = "00000000-0000-4000-8000-0000000000a1"
FORMER = "00000000-0000-4000-8000-0000000000a2"

TABLES = [
    "tenants",
    "tenant_members",
    "notification_channels",
    "notifications",
    "whatsapp_connection_incidents",
]
THEIRS = "(select oid from pg_class where relname = any($1) and relnamespace = 'public'::regnamespace)"
SIGHTS = {
    "columns": f"""
        select concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
          pg_get_expr(adbin, adrelid))
        from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where attnum > 0 and attrelid in {THEIRS}""",
    "constraints": f"""
        select concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
        from pg_constraint where conrelid in {THEIRS} and contype <> 'c'""",
    "triggers": f"""
        select concat_ws(' ', tgrelid::regclass, pg_get_triggerdef(oid), tgenabled)
        from pg_trigger where tgrelid in {THEIRS} and not tgisinternal""",
    "policies": "select pg_policies::text from pg_policies where tablename = any($1)",
    "row security": f"""
        select concat_ws(' ', relname, relrowsecurity, relforcerowsecurity, relowner,
          obj_description(oid, 'pg_class'))
        from pg_class where oid in {THEIRS}""",
    "functions": """
        select concat_ws(' ', oid::regprocedure, prosrc, proacl) from pg_proc
        where pronamespace in ('public'::regnamespace, 'auth'::regnamespace) and $1::text[] is not null""",
    "indexes": f"select pg_get_indexdef(indexrelid) from pg_index where indrelid in {THEIRS}",
}
CHECKS = f"""select conname, pg_get_constraintdef(oid) from pg_constraint
    where conrelid in {THEIRS} and contype = 'c'"""


async def see(connection: Connection) -> dict[str, set[str]]:
    """Return everything that adoption must leave as it is."""
    return {name: {row[0] for row in await connection.fetch(query, TABLES)} for name, query in SIGHTS.items()}


async def see_rows(connection: Connection) -> list[tuple[str, str, str]]:
    """Return every row's place, writer and content; a rewritten one would have others."""
    rows = []
    for table in [*TABLES, "audit"]:
        for row in await connection.fetch(f"select ctid::text, xmin::text, to_jsonb(t)::text from {table} t"):
            rows.append((f"{table} {row[0]}", row[1], row[2]))
    return rows


async def checks(connection: Connection) -> dict[str, str]:
    return {row[0]: row[1] for row in await connection.fetch(CHECKS, TABLES)}


@pytest.fixture
async def adopted(adopted_dsn: str) -> AsyncIterator[Connection]:
    async with connected(adopted_dsn) as connection:
        yield connection


@pytest.fixture
async def superuser(server: Server, adopted_dsn: str) -> AsyncIterator[Connection]:
    async with connected(server.admin_dsn(urlsplit(adopted_dsn).path.removeprefix("/"))) as connection:
        yield connection


@pytest.mark.parametrize("incidents_row_security", ["disable", "enable"])
async def test_adoption_only_adds(adopted: Connection, incidents_row_security: str) -> None:
    statement = f"alter table whatsapp_connection_incidents {incidents_row_security} row level security"
    await adopted.execute(statement)
    before = await see(adopted)

    await migrate(adopted)

    after = await see(adopted)
    assert {name: before[name] - after[name] for name in before} == {name: set() for name in before}
    assert after["row security"] == before["row security"]


async def test_adoption_rewrites_no_row_and_fires_no_trigger(adopted: Connection) -> None:
    before = await see_rows(adopted)

    await migrate(adopted)

    after = await see_rows(adopted)
    assert [row[:2] for row in after] == [row[:2] for row in before]
    # An added column shows in the content with its default.
    for (_, _, new), (_, _, old) in zip(after, before, strict=True):
        assert await adopted.fetchval("select $1::text::jsonb @> $2::text::jsonb", new, old)


async def test_checks_are_widened_under_their_names_and_no_others_change(adopted: Connection) -> None:
    before = await checks(adopted)

    await migrate(adopted)

    after = await checks(adopted)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "notification_channels_provider_check",
        "notification_channels_connection_status_check",
        "notifications_type_check",
        "whatsapp_connection_incidents_provider_check",
        "whatsapp_connection_incidents_kind_check",
    }
    assert after.keys() == before.keys()
    for name in changed:
        assert set(re.findall("'.*?'", before[name])) < set(re.findall("'.*?'", after[name]))
        assert " OR " in after[name]
        assert "NOT VALID" not in after[name]


async def test_widened_checks_take_both_vocabularies_and_nothing_else(adopted: Connection) -> None:
    await migrate(adopted)

    update = "update notification_channels set connection_status = $2 where id = $1"
    for word in ("CONNECTED", "open", "connecting", "qr_pending", "disconnected", "error", "unknown"):
        await adopted.execute(update, CHANNEL, word)
    with pytest.raises(Exception, match="notification_channels_connection_status_check"):
        await adopted.execute(update, CHANNEL, "resting")
    provider = "update notification_channels set provider = $2 where id = $1"
    for word in ("evolution_api", "wapi", "waha"):
        await adopted.execute(provider, CHANNEL, word)
    with pytest.raises(Exception, match="twilio_has_a_number"):
        await adopted.execute(provider, CHANNEL, "twilio")
    for word in ("new_patient", "system_alert", "instance_disconnected"):
        await adopted.execute("update notifications set type = $1", word)


async def test_a_widened_check_keeps_its_comment(adopted: Connection) -> None:
    await migrate(adopted)

    comment = "select obj_description(oid, 'pg_constraint') from pg_constraint where conname = $1"
    assert (
        await adopted.fetchval(comment, "notification_channels_provider_check") == "ask Ana before changing"
    )


async def test_a_check_that_takes_our_words_stays_as_it_is(adopted: Connection) -> None:
    await adopted.execute(
        "alter table notifications drop constraint notifications_type_check, "
        "add constraint notifications_type_check check (length(type) < 40)"
    )
    before = await checks(adopted)

    await migrate(adopted)

    assert (await checks(adopted))["notifications_type_check"] == before["notifications_type_check"]


async def test_a_check_that_rows_break_already_is_widened_and_stays_not_valid(adopted: Connection) -> None:
    await adopted.execute(
        "alter table notifications drop constraint notifications_type_check, "
        "add constraint notifications_type_check check (type in ('new_scheduling')) not valid"
    )

    await migrate(adopted)

    check = (await checks(adopted))["notifications_type_check"]
    assert "instance_disconnected" in check
    assert check.endswith("NOT VALID")


async def test_adopting_twice_is_adopting_once(adopted: Connection) -> None:
    await migrate(adopted)
    before = (await see(adopted), await see_rows(adopted), await checks(adopted))
    await adopted.execute("delete from zapwatch_migrations")

    await migrate(adopted)

    assert (await see(adopted), await see_rows(adopted), await checks(adopted)) == before


async def test_the_ordinary_owner_can_use_what_is_added(adopted: Connection) -> None:
    await migrate(adopted)

    opened = await adopted.fetchval("select whatsapp_heartbeat_open_incident($1, 'qr_pending')", CHANNEL)

    kind = "select kind from whatsapp_connection_incidents where id = $1 and resolved_at is null"
    assert await adopted.fetchval(kind, opened) == "qr_pending"
    assert await adopted.fetchval("select whatsapp_heartbeat_resolve_open_incidents($1)", CHANNEL) == 1
    events = "select array_agg(name order by id) from zapwatch_events where channel_id = $1"
    assert await adopted.fetchval(events, CHANNEL) == ["incident_opened", "incident_resolved"]
    kinds = "select array_agg(kind order by id) from zapwatch_alerts"
    assert await adopted.fetchval(kinds) == ["changed", "resolved"]  # the open one was not ours


async def test_the_other_applications_writes_reach_the_machine(
    adopted: Connection, superuser: Connection
) -> None:
    await migrate(adopted)
    await adopted.execute(
        "insert into zapwatch_states (channel_id, tenant_id, due_at) values ($1, $2, null)", CHANNEL, TENANT
    )
    await adopted.execute(
        "grant select, update on notification_channels to authenticated; "
        "grant select on tenant_members to authenticated"
    )
    await superuser.execute(f"set role authenticated; set clinic.who = '{MEMBER}'")

    await superuser.execute("""update notification_channels set metadata = '{"alerts_enabled": false}'""")

    due = "select due_at <= now() from zapwatch_states where channel_id = $1"
    assert await adopted.fetchval(due, CHANNEL)


async def test_a_function_of_ours_that_another_application_wrote_stays(adopted: Connection) -> None:
    await adopted.execute(
        "create function whatsapp_heartbeat_mark_notified(p_incident_id uuid) returns int "
        "language sql as 'select 42'; "
        "grant execute on function whatsapp_heartbeat_mark_notified to authenticated"
    )
    before = await see(adopted)

    await migrate(adopted)

    assert before["functions"] <= (await see(adopted))["functions"]
    assert await adopted.fetchval("select whatsapp_heartbeat_mark_notified(null)") == 42
    privilege = "has_function_privilege('authenticated', 'whatsapp_heartbeat_mark_notified(uuid)', 'execute')"
    assert await adopted.fetchval(f"select {privilege}")
    assert await adopted.fetchval("select to_regprocedure('whatsapp_heartbeat_resolve_open_incidents(uuid)')")


async def test_the_other_applications_word_on_admins_is_asked(adopted: Connection) -> None:
    await migrate(adopted)

    assert await adopted.fetchval("select to_regprocedure('public.is_saas_admin()')") is None
    assert not await adopted.fetchval("select coalesce(is_saas_admin(), false)")


@pytest.mark.parametrize(("user", "sees"), [(MEMBER, 2), (FORMER, 0), (CHANNEL, 0)])
async def test_members_read_adopted_incidents_where_row_security_is_on(
    adopted: Connection, superuser: Connection, user: str, sees: int
) -> None:
    await adopted.execute("alter table whatsapp_connection_incidents enable row level security")
    await migrate(adopted)

    await superuser.execute(f"set role authenticated; set clinic.who = '{user}'")

    assert await superuser.fetchval("select count(*) from whatsapp_connection_incidents") == sees


async def test_nobody_gets_to_read_incidents_where_row_security_is_off(adopted: Connection) -> None:
    await migrate(adopted)

    privilege = "select has_table_privilege($1, 'whatsapp_connection_incidents', 'select')"
    assert not await adopted.fetchval(privilege, "authenticated")
    assert await adopted.fetchval(privilege, "service_role")


async def test_several_open_incidents_of_a_channel_are_left_to_a_person(adopted: Connection) -> None:
    await adopted.execute(
        "insert into whatsapp_connection_incidents (tenant_id, channel_id, provider, kind) "
        "select tenant_id, channel_id, provider, kind from whatsapp_connection_incidents "
        "where resolved_at is null"
    )
    before = await see_rows(adopted)

    with pytest.raises(
        MigrationError, match=r"1 channels have more than one open incident \(1 too many\)"
    ) as seen:
        await migrate(adopted)

    assert [row[:2] for row in await see_rows(adopted)] == [row[:2] for row in before]
    advice = re.search(r"UPDATE .*;", str(seen.value))
    assert advice is not None
    await adopted.execute(advice[0])
    applied = await migrate(adopted)
    assert applied == sorted(path.name for path in MIGRATIONS.glob("*.sql"))[2:]
    assert applied[0] == "0003_incidents.sql"
    newest = (
        "select count(*) from whatsapp_connection_incidents where resolved_at is null and started_at > $1"
    )
    started = await adopted.fetchval(
        "select max(started_at) from whatsapp_connection_incidents where duration_seconds > 0"
    )
    assert await adopted.fetchval(newest, started) == 1


async def test_an_index_of_our_name_that_is_another_is_named(adopted: Connection) -> None:
    await adopted.execute(
        "create index uq_wa_incidents_open_per_channel on whatsapp_connection_incidents (kind)"
    )

    with pytest.raises(MigrationError, match="uq_wa_incidents_open_per_channel exists and is another one"):
        await migrate(adopted)


async def test_tables_of_the_same_names_with_other_keys_are_refused_at_once(empty_dsn: str) -> None:
    async with connected(empty_dsn) as connection:
        await connection.execute("create table tenants (id bigint); create table notifications (id uuid)")

        with pytest.raises(
            MigrationError, match=r"notifications.tenant_id is missing; tenants.id is bigint, not uuid"
        ):
            await migrate(connection)

        assert await connection.fetchval("select to_regclass('notification_channels')") is None


async def test_columns_of_enumerated_types_are_widened_and_take_our_writes(adopted: Connection) -> None:
    await adopted.execute("""
        create type provider as enum ('evolution_api', 'twilio');
        create type kind as enum ('disconnected', 'error');
        alter table notification_channels drop constraint notification_channels_provider_check,
          drop constraint twilio_has_a_number, alter provider type provider using provider::provider;
        alter table whatsapp_connection_incidents drop constraint whatsapp_connection_incidents_kind_check,
          alter kind type kind using kind::kind,
          drop constraint whatsapp_connection_incidents_provider_check,
          alter provider type provider using provider::provider;
    """)

    await migrate(adopted)

    await adopted.execute("update notification_channels set provider = 'wapi' where id = $1", CHANNEL)
    await adopted.fetchval("select whatsapp_heartbeat_open_incident($1, 'connecting')", CHANNEL)
    incident = (
        "select provider::text || ' ' || kind from whatsapp_connection_incidents where resolved_at is null"
    )
    assert await adopted.fetchval(incident) == "evolution_api connecting"  # it was open before
    await adopted.fetchval("select whatsapp_heartbeat_resolve_open_incidents($1)", CHANNEL)
    await adopted.fetchval("select whatsapp_heartbeat_open_incident($1, 'unknown')", CHANNEL)
    assert await adopted.fetchval(incident) == "wapi unknown"


async def test_a_domain_that_refuses_our_words_is_named(adopted: Connection) -> None:
    await adopted.execute("""
        create domain notice as text check (value in ('new_scheduling', 'new_patient'));
        alter table notifications drop constraint notifications_type_check, alter type type notice;
    """)

    with pytest.raises(
        MigrationError, match=r"column notifications.type has the domain notice.*'system_alert'"
    ):
        await migrate(adopted)
