"""What the doctor finds in a database: each fault by its name, and nothing where nothing is wrong."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from db import diagnosis
from db.connection.types import Connection
from db.diagnosis import Finding, Severity, WatchedGateway
from db.migrate import migrate
from db.registry.channels import ChannelSpec, pause_channel, register_channel
from db.vault import Vault
from statemachine.clock import Clock
from tests.conftest import connected
from tests.db.conftest import add_channel

VAULT = Vault([bytes(32)])
OPEN = "whatsapp_heartbeat_open_incident(uuid,text,text,jsonb)"
MINUTE = timedelta(minutes=1)


def codes(findings: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in findings]


async def register(connection: Connection, instance: str = "loja", **fields: str) -> UUID:
    new = ChannelSpec(provider="evolution_api", instance=instance, **fields)  # type: ignore[arg-type]
    return (await register_channel(connection, VAULT, new))[0]


def gateway(version: str | None = "2.3.7", offset: float | None = None) -> WatchedGateway:
    clock = Clock() if offset is None else Clock(offset=timedelta(seconds=offset))
    return WatchedGateway(uuid4(), "evolution_api", "http://gw.example", None, version, clock, False)


async def test_a_migrated_database_has_no_fault(connection: Connection) -> None:
    found = [
        *await diagnosis.check_migrations(connection),
        *await diagnosis.check_schema(connection),
        *await diagnosis.check_functions(connection),
        *await diagnosis.check_overdue(connection, MINUTE),
        *await diagnosis.check_quarantine(connection),
    ]

    assert found == []


@pytest.mark.parametrize(
    ("fault", "code", "named"),
    [
        (f"revoke execute on function {OPEN} from service_role", "missing_grant", OPEN),
        ("revoke select on whatsapp_connection_incidents from authenticated", "missing_grant", "incidents"),
        ("revoke update on tenants from service_role", "missing_grant", "tenants"),
        (f"grant execute on function {OPEN} to public", "surplus_grant", OPEN),
        (f"grant execute on function {OPEN} to authenticated", "surplus_grant", "authenticated"),
        ("grant execute on function zapwatch_tenant() to public", "surplus_grant", "zapwatch_tenant()"),
        ("grant select on zapwatch_events to authenticated", "surplus_grant", "zapwatch_events"),
        ("alter table zapwatch_tokens no force row level security", "row_security", "zapwatch_tokens"),
        ("alter table zapwatch_tokens disable row level security", "row_security", "zapwatch_tokens"),
        ("alter table zapwatch_states owner to postgres", "owner", "zapwatch_states"),
        ('drop policy "zapwatch owner" on zapwatch_alerts', "missing_object", "zapwatch_alerts"),
        (
            "drop policy wa_incidents_select_members on whatsapp_connection_incidents",
            "missing_object",
            "wa_incidents_select_members",
        ),
        (
            "drop trigger trg_zapwatch_channel_changed on notification_channels",
            "missing_object",
            "trg_zapwatch_channel_changed",
        ),
        (
            "alter table notification_channels disable trigger trg_zapwatch_channel_changed",
            "missing_object",
            "trg_zapwatch_channel_changed",
        ),
        ("drop index uq_wa_incidents_open_per_channel", "missing_object", "uq_wa_incidents_open_per_channel"),
    ],
)
async def test_schema_fault_is_found(
    connection: Connection, admin: Connection, fault: str, code: str, named: str
) -> None:
    await admin.execute(fault)

    [found] = await diagnosis.check_schema(connection)

    assert (found.severity, found.code) == (Severity.PROBLEM, code)
    assert named in found.what


@pytest.mark.parametrize(
    "fault",
    [
        f"revoke execute on function {OPEN} from service_role",
        f"grant execute on function {OPEN} to public",
        "grant select, delete on zapwatch_events to authenticated",
        "alter table zapwatch_tokens disable row level security",
        "alter table zapwatch_states owner to postgres",
        "drop index uq_wa_incidents_open_per_channel",
    ],
)
async def test_what_the_finding_says_to_run_puts_the_fault_right(
    connection: Connection, admin: Connection, fault: str
) -> None:
    await admin.execute(fault)
    [found] = await diagnosis.check_schema(connection)

    await admin.execute(found.do.partition(": ")[2])

    assert await diagnosis.check_schema(connection) == []


async def test_missing_role_is_found(admin: Connection) -> None:
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("alter role authenticated rename to somebody_else")

    found = await diagnosis.check_schema(admin)
    await transaction.rollback()

    missing = next(finding for finding in found if finding.code == "missing_role")
    assert "authenticated" in missing.what
    assert "create role authenticated" in missing.do


async def test_incidents_that_everybody_reads_are_found(connection: Connection, admin: Connection) -> None:
    await admin.execute("alter table whatsapp_connection_incidents disable row level security")

    [found] = await diagnosis.check_schema(connection)

    assert (found.severity, found.code) == (Severity.PROBLEM, "surplus_grant")
    assert "authenticated may read every tenant's" in found.what


async def test_members_shut_out_of_an_adopted_table_are_a_note(adopted_dsn: str) -> None:
    async with connected(adopted_dsn) as connection:
        await migrate(connection)

        [found] = await diagnosis.check_schema(connection)

    assert (found.severity, found.code) == (Severity.NOTE, "shut_out_members")


async def test_more_faults_than_are_named_are_counted(connection: Connection, admin: Connection) -> None:
    for row in await admin.fetch(
        "select relname from pg_class where relname ~ '^zapwatch_' and relkind = 'r'"
    ):
        await admin.execute(f"grant select on {row['relname']} to public")

    [found] = await diagnosis.check_schema(connection)

    assert " more." in found.what
    assert found.do.count(";") == diagnosis.NAMED


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        (
            "whatsapp_heartbeat_mark_notified",
            "create or replace function whatsapp_heartbeat_mark_notified(p_incident_id uuid) returns void"
            " language sql as 'select 1'",
        ),
        (
            "zapwatch_tenant",
            "create or replace function zapwatch_tenant() returns uuid language sql as 'select null::uuid'",
        ),
    ],
)
async def test_replaced_function_is_found(
    connection: Connection, admin: Connection, name: str, replacement: str
) -> None:
    await admin.execute(replacement)

    [found] = await diagnosis.check_functions(connection)

    assert (found.severity, found.code) == (Severity.PROBLEM, "replaced_function")
    assert f"(1): {name}(" in found.what


async def test_missing_function_is_found(connection: Connection, admin: Connection) -> None:
    await admin.execute(f"drop function {OPEN}")

    [found] = await diagnosis.check_functions(connection)

    assert found.code == "missing_function"
    assert "whatsapp_heartbeat_open_incident" in found.what


async def test_functions_of_a_newer_version_are_not_called_replaced(
    connection: Connection, admin: Connection
) -> None:
    await admin.execute("insert into zapwatch_migrations (name, checksum) values ('9999_later.sql', 'x')")
    await admin.execute("drop function zapwatch_may_define(text)")

    found = await diagnosis.check_functions(connection)

    assert codes(found) == ["newer_database"]
    assert found[0].severity is Severity.NOTE


async def test_pending_and_changed_migrations_are_found(connection: Connection) -> None:
    await connection.execute("delete from zapwatch_migrations where name like '0005%'")
    [pending] = await diagnosis.check_migrations(connection)

    await connection.execute("update zapwatch_migrations set checksum = 'x' where name like '0001%'")
    [changed] = await diagnosis.check_migrations(connection)

    assert pending.code == "pending_migrations"
    assert "0005_" in pending.what
    assert "zapwatch migrate" in pending.do
    assert changed.code == "changed_migration"
    assert "0001_" in changed.what


@pytest.mark.parametrize(
    ("due", "claim", "codes_wanted"),
    [
        ("probe_due_at", "probe_claimed_until", ("no_probes", "slow_probes")),
        ("due_at", "claimed_until", ("no_deadlines", "slow_deadlines")),
    ],
)
async def test_work_that_nobody_does_is_found_and_told_from_slow_work(
    connection: Connection, due: str, claim: str, codes_wanted: tuple[str, str]
) -> None:
    channel, other = await add_channel(connection), await add_channel(connection)
    write = f"update zapwatch_states set {due} = now() - $2::interval, {claim} = $3 where channel_id = $1"
    now = datetime.now(UTC)

    await connection.execute(write, channel, MINUTE * 2, None)
    idle = await diagnosis.check_overdue(connection, MINUTE)
    await connection.execute(write, other, MINUTE * 2, now + MINUTE)
    slow = await diagnosis.check_overdue(connection, MINUTE)
    await connection.execute(write, channel, MINUTE / 2, None)
    await connection.execute(write, other, MINUTE / 2, None)
    in_time = await diagnosis.check_overdue(connection, MINUTE)

    assert codes([*idle, *slow, *in_time]) == list(codes_wanted)
    assert "zapwatch serve" in idle[0].do
    assert "120 s" in idle[0].what


async def test_channels_that_an_application_made_and_we_lack_are_found(connection: Connection) -> None:
    await register(connection)
    lacking = await add_channel(connection)

    [found] = await diagnosis.check_quarantine(connection)

    assert (found.severity, found.code) == (Severity.PROBLEM, "unwatched_channels")
    assert f"wapi in notification_channels that are not watched (1): {lacking}" in found.what


async def test_channels_of_providers_that_we_do_not_know_are_a_note(
    connection: Connection, admin: Connection
) -> None:
    await admin.execute(
        "alter table notification_channels drop constraint notification_channels_provider_check"
    )
    channel = await add_channel(connection)
    await connection.execute("update notification_channels set provider = 'meta' where id = $1", channel)

    [found] = await diagnosis.check_quarantine(connection)

    assert (found.severity, found.code) == (Severity.NOTE, "foreign_channels")


async def test_unknown_instances_of_this_week_are_a_note(connection: Connection) -> None:
    await register(connection, "loja", api_url="http://gw.example")
    await connection.execute(
        "insert into zapwatch_unknown_instances (gateway_id, instance, last_at)"
        " select g.id, u.instance, u.last_at from zapwatch_gateways g, (values"
        " ('fresh', now()), ('old', now() - interval '8 days'), ('loja', now())) as u (instance, last_at)"
    )

    [found] = await diagnosis.check_quarantine(connection)

    assert (found.severity, found.code) == (Severity.NOTE, "unknown_instances")
    assert "(1): fresh at http://gw.example." in found.what


async def test_unreadable_webhooks_are_a_note_with_the_newest_problem(connection: Connection) -> None:
    for words in ("not JSON", "no event name"):
        await connection.execute(
            "insert into zapwatch_quarantine (token_hash, provider, body, size, problem)"
            " values ('', 'wapi', '', 0, $1)",
            words,
        )

    [found] = await diagnosis.check_quarantine(connection)

    assert (found.severity, found.code) == (Severity.NOTE, "quarantine")
    assert found.what == "Webhooks that could not be read (2); the newest: no event name."


async def test_disk_of_a_day_is_that_of_the_last_week(connection: Connection) -> None:
    channel = await add_channel(connection)
    await connection.execute(
        "insert into zapwatch_events"
        " (channel_id, tenant_id, source, name, received_at, last_received_at, state)"
        " select channel_id, tenant_id, 'webhook', 'x', at, at, 'open' from zapwatch_states,"
        " (select generate_series(now() - interval '40 days', now() - interval '10 days', '1 minute') as at"
        "  union all select generate_series(now() - interval '7 days', now(), interval '10 minutes'))"
        " where channel_id = $1 order by at",
        channel,
    )
    bytes_taken = await connection.fetchval("select pg_total_relation_size('zapwatch_events')")
    events = await connection.fetchval("select count(*) from zapwatch_events")

    [found] = await diagnosis.check_disk(connection, 90)

    assert f"at present {diagnosis.size(bytes_taken * 144 / events)} a day" in found.what


async def test_old_events_that_nobody_forgets_are_a_problem(connection: Connection) -> None:
    await register(connection)
    due = "update zapwatch_channels set retention_due_at = now() - $1::interval"

    await connection.execute(due, timedelta(hours=23))
    in_time = await diagnosis.check_retention(connection)
    await connection.execute(due, timedelta(hours=26))
    [found] = await diagnosis.check_retention(connection)

    assert in_time == []
    assert (found.severity, found.code) == (Severity.PROBLEM, "no_retention")
    assert found.what == "Old events of 1 channels are not deleted, for 1,560 min."


async def test_disk_of_a_day_follows_the_last_days_events(connection: Connection) -> None:
    channel = await add_channel(connection)
    await connection.execute(
        "insert into zapwatch_events"
        " (channel_id, tenant_id, source, name, received_at, last_received_at, state)"
        " select channel_id, tenant_id, 'webhook', 'x', at, at, 'open' from zapwatch_states,"
        " generate_series(now() - interval '55 hours', now(), interval '1 minute') as at"
        " where channel_id = $1",
        channel,
    )
    bytes_taken = await connection.fetchval("select pg_total_relation_size('zapwatch_events')")

    [found] = await diagnosis.check_disk(connection, 90)

    daily = bytes_taken * 1440 / 3301
    assert found.severity is Severity.NOTE
    assert f"for 3,301 events, at present {diagnosis.size(daily)} a day" in found.what
    assert f"{diagnosis.size(daily * 90)} in 90 days" in found.what


async def test_disk_of_a_young_installation_is_told_without_a_forecast(connection: Connection) -> None:
    [found] = await diagnosis.check_disk(connection, 90)

    assert "for 0 events: too few" in found.what
    assert "a day:" not in found.what


@pytest.mark.parametrize(
    ("count", "text"),
    [(8192, "8.2 kB"), (999, "999 bytes"), (12_345_678, "12 MB"), (999_999, "1000 kB"), (5e12, "5.0 TB")],
)
def test_sizes_are_for_people(count: float, text: str) -> None:
    assert diagnosis.size(count) == text


async def test_channels_that_can_not_be_asked_or_are_forgotten_are_found(connection: Connection) -> None:
    whole = await register(connection, "whole", api_url="http://gw.example", api_key="k", name="Centro")
    bare = await register(connection, "bare", api_url="http://gw.example")
    nameless = await register(connection, "nameless", api_url="http://gw.example", api_key="k")
    forgotten = await register(connection, "forgotten", api_url="http://gw.example", api_key="k")
    await connection.execute("update zapwatch_channels set instance = null where channel_id = $1", nameless)
    await pause_channel(connection, whole, None)
    await pause_channel(connection, forgotten, None)
    await connection.execute(
        "update zapwatch_channels set paused_at = now() - interval '8 days' where channel_id = $1", forgotten
    )

    channels = await diagnosis.read_channels(connection)
    found = {finding.code: finding for finding in diagnosis.check_channels(channels, datetime.now(UTC))}

    assert set(found) == {"unreadable", "unconfigured", "paused"}
    assert f"(1): {nameless} (evolution_api at http://gw.example)." in found["unreadable"].what
    assert f"(1): {bare} (bare at http://gw.example)." in found["unconfigured"].what
    assert f"(1): {forgotten} (forgotten" in found["paused"].what
    assert found["paused"].severity is Severity.NOTE
    assert str(whole) not in "".join(finding.what for finding in found.values())


async def test_what_is_no_longer_paid_for_or_soon_will_not_be_is_found(connection: Connection) -> None:
    days = {"over": -0.1, "hours": 0.5, "two": 2, "six": 6, "month": 30}
    for name, left in days.items():
        channel = await register(connection, name, api_url="http://gw.example", api_key="k")
        await connection.execute(
            "update zapwatch_channels set expires_at = now() + $2 where channel_id = $1",
            channel,
            timedelta(days=left),
        )

    channels = await diagnosis.read_channels(connection)
    found = {finding.code: finding for finding in diagnosis.check_channels(channels, datetime.now(UTC))}

    assert {
        code: next(name for name in days if f"({name} " in finding.what) for code, finding in found.items()
    } == {
        "expired": "over",
        "expires_in_1": "hours",
        "expires_in_3": "two",
        "expires_in_7": "six",
    }
    assert {code for code, it in found.items() if it.severity is Severity.PROBLEM} == {
        "expired",
        "expires_in_1",
    }


async def test_removed_channels_are_not_looked_at(connection: Connection) -> None:
    inactive, deleted, removed = [await register(connection, name) for name in ("a", "b", "c")]
    await connection.execute("update notification_channels set is_active = false where id = $1", inactive)
    await connection.execute("update notification_channels set deleted_at = now() where id = $1", deleted)
    await connection.execute("update zapwatch_channels set removed = true where channel_id = $1", removed)

    assert await diagnosis.read_channels(connection) == []


@pytest.mark.parametrize(
    ("offset", "code", "words"),
    [
        (None, None, ""),
        (-0.8, None, ""),
        (-119, None, ""),
        (-3 * 3600 - 0.5, "zone", "UTC-03:00 (1): http://gw.example"),
        (5.5 * 3600 + 60, "zone", "UTC+05:30"),
        (-121, "clock", "http://gw.example by -121 s"),
        (-3 * 3600 + 300, "clock", "by +300 s"),
    ],
)
def test_clock_is_wrong_only_away_from_whole_quarters_of_an_hour(
    offset: float | None, code: str | None, words: str
) -> None:
    found = diagnosis.check_clocks([gateway(offset=offset)])

    assert codes(found) == ([] if code is None else [code])
    assert words in "".join(finding.what for finding in found)
    assert all((f.severity is Severity.PROBLEM) == (f.code == "clock") for f in found)


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("2.3.7", None),
        ("2.4.0", None),
        ("2.4.0-rc2", "release_candidate"),
        ("v2.4.0-rc1", "release_candidate"),
        (None, "unknown_version"),
    ],
)
def test_versions_that_are_unknown_or_wipe_sessions_are_notes(version: str | None, code: str | None) -> None:
    found = diagnosis.check_versions([gateway(version)])

    assert [(finding.severity, finding.code) for finding in found] == (
        [] if code is None else [(Severity.NOTE, code)]
    )


async def test_channels_found_dead_are_a_problem_and_suspected_ones_a_note(connection: Connection) -> None:
    suspect = """
        insert into zapwatch_suspicions (channel_id, tenant_id, suspected_at)
        select channel_id, tenant_id, now() from zapwatch_channels where channel_id = $1"""
    for instance, state, reason in (("morta", "error", "open_but_dead"), ("suspeita", "open", None)):
        channel = await register(connection, instance)
        await connection.execute(suspect, channel)
        stand = "update zapwatch_states set state = $2, reason = $3 where channel_id = $1"
        await connection.execute(stand, channel, state, reason)

    found = {finding.code: finding for finding in await diagnosis.check_deep_probes(connection)}

    assert found["open_but_dead"].severity is Severity.PROBLEM
    assert found["suspected"].severity is Severity.NOTE
    assert "morta at" in found["open_but_dead"].what
    assert "suspeita at" in found["suspected"].what


async def test_a_gateway_with_an_incident_is_a_problem(connection: Connection) -> None:
    await connection.execute(
        "insert into zapwatch_gateways (provider, base_url) values ('wapi', 'https://wapi.test')"
    )
    await connection.execute(
        """insert into zapwatch_gateway_incidents (gateway_id, cause, started_at, opened_at)
           select id, 'unavailable', now(), now() from zapwatch_gateways"""
    )

    (finding,) = diagnosis.check_gateways(await diagnosis.read_gateways(connection))

    assert (finding.severity, finding.code) == (Severity.PROBLEM, "gateway_down")
    assert "(unavailable)" in finding.what
