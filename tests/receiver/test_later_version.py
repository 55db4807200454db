"""Rows that a later version wrote, as after a step back: they disturb nothing, and are answered clearly."""

import logging
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from db.connection.types import Connection
from receiver.doctor import examine
from receiver.settings import Settings
from tests.factories import Evolution
from tests.receiver.jobs.test_failing_loops import opened
from tests.support.command import zapwatch as command
from tests.support.service import KEY
from tests.support.story import Story, story

WIDENED = """
do $$
declare c record;
begin
  for c in
    select conrelid::regclass as name, conname from pg_constraint
    where contype = 'c' and connamespace = 'public'::regnamespace
      and pg_get_constraintdef(oid) ~ 'evolution_api|qr_pending|unknown|mass_loss'
  loop
    execute format('alter table %s drop constraint %I', c.name, c.conname);
  end loop;
end $$;
"""
"""What the later version's migrations did to the check constraints."""
FUTURE = (
    "update zapwatch_gateways set provider = 'future_gateway', version = '9', records_due_at = now(),"
    " version_due_at = now(), sweep_due_at = now() where base_url = $1",
    "update zapwatch_channels c set provider = 'future_gateway', subscription_due_at = now()"
    " from zapwatch_gateways g where g.id = c.gateway_id and g.base_url = $1",
    "update notification_channels n set provider = 'future_gateway' from zapwatch_channels c"
    " join zapwatch_gateways g on g.id = c.gateway_id where n.id = c.channel_id and g.base_url = $1",
    "insert into zapwatch_slots (channel_id, tenant_id, state, traffic, due_at, checked_at)"
    " select c.channel_id, c.tenant_id, 'set', false, now(), now() from zapwatch_channels c"
    " join zapwatch_gateways g on g.id = c.gateway_id where g.base_url = $1",
    "insert into zapwatch_suspicions (channel_id, tenant_id, sign, suspected_at, due_at)"
    " select c.channel_id, c.tenant_id, 'x', now(), now() from zapwatch_channels c"
    " join zapwatch_gateways g on g.id = c.gateway_id where g.base_url = $1",
    "update zapwatch_states s set probe_due_at = now(), due_at = now(), recovery_due_at = now()"
    " from zapwatch_gateways g where g.id = s.gateway_id and g.base_url = $1",
)

EVIDENCE = (
    '{"evidence": {"base": ["future_state", "future_reason", null], "witnesses": [["2026-01-01T00:00:00Z",'
    ' "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "future_trigger", "future_reason", null]]}}'
)
WORDS = (
    "update zapwatch_states set state = 'future_state', reason = 'future_reason', version = version + 1,"
    f" first_unhealthy_at = now(), probe_due_at = now(), memory = '{EVIDENCE}' where channel_id = $1",
    "insert into whatsapp_connection_incidents"
    " (tenant_id, channel_id, provider, kind, details, started_at, opened_at)"
    " select tenant_id, channel_id, provider, 'future_kind', '{\"reason\": \"future_reason\"}', now(), now()"
    " from zapwatch_channels where channel_id = $1",
    "insert into zapwatch_alerts (incident_id, channel_id, tenant_id, kind)"
    " select id, channel_id, tenant_id, 'opened' from whatsapp_connection_incidents where channel_id = $1",
)
"""A channel's state, evidence and incident in words that only a later version knows."""
WAITS = """
select probe_due_at > now() + interval '1 minute' and coalesce(due_at > now(), true)
  and coalesce(recovery_due_at > now(), true)
from zapwatch_states where channel_id = $1
"""


async def errors(told: Story, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error, and the loops whose rounds have failed."""
    text = (await told.z.client.get("/metrics")).text
    failed = [line for line in text.splitlines() if line.startswith("zapwatch_loop_failures_total")]
    return [
        *(record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR),
        *(line for line in failed if not line.endswith(" 0.0") and 'kind="transient"' not in line),
    ]


async def become_future(admin: Connection, url: str) -> None:
    """Have a gateway and its channels be of a provider that only a later version knows, and all work due."""
    await admin.execute(WIDENED)
    for statement in FUTURE:
        await admin.execute(statement, url)


async def findings(dsn: str) -> dict[str, str]:
    """Return what `zapwatch doctor` finds, by code."""
    examination = await examine(Settings(database_url=dsn, secret_keys=(KEY,)), opened)
    return {finding.code: finding.what for finding in examination.findings}


async def test_gateway_of_an_unknown_provider_disturbs_no_other(
    dsn: str, connection: Connection, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with story(dsn) as told:
        host, later = await told.fleet.evolution(), await told.fleet.evolution()
        good, future = host.add("loja-01"), later.add("loja-02")
        channel, unknown = await told.watch(host, good), await told.watch(later, future)

        await become_future(admin, later.url)
        unread = "update zapwatch_gateways set version = null, version_due_at = now() where base_url = $1"
        await connection.execute(unread, host.url)

        await told.asked(good, 5)
        version = "select version from zapwatch_gateways where base_url = $1"
        await told.z.until(lambda: connection.fetchval(version, host.url), bool)
        good.vanish()
        await told.becomes(channel, "disconnected", "session_missing")
        assert (await told.z.incident(channel))["kind"] == "disconnected"
        await told.z.until(lambda: connection.fetchval(WAITS, unknown), bool)
        refused = [record.getMessage() for record in caplog.records if "is not probed" in record.getMessage()]
        assert refused == [f"channel {unknown} is not probed: this version doesn't know future_gateway"]
        assert await told.z.get("/readyz") == {"status": "ready", "failing_loops": []}
        assert await errors(told, caplog) == []
        assert (await told.z.state(unknown))["state"] == "open"


async def test_operators_are_told_clearly_of_an_unknown_provider(
    dsn: str, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with story(dsn) as told:
        later = await told.fleet.evolution()
        future = later.add("loja-02")
        unknown = await told.watch(later, future)
        gateway = (await told.z.get(f"/channels/{unknown}"))["gateway_id"]
        await become_future(admin, later.url)

        async def refusal(method: str, path: str) -> tuple[int, Any]:
            answer = await told.z.client.request(method, path)
            return answer.status_code, answer.json().get("detail")

        assert await refusal("POST", f"/channels/{unknown}/check") == (
            409,
            "The channel can't be probed: this version doesn't know future_gateway.",
        )
        assert (await refusal("GET", f"/channels/{unknown}/qr"))[0] == 409
        assert (await refusal("POST", f"/channels/{unknown}/restart"))[0] == 409
        assert (await refusal("POST", f"/gateways/{gateway}/import"))[0] in {409, 502}
        for path in ("/channels", "/gateways", f"/channels/{unknown}", f"/gateways/{gateway}", "/incidents"):
            assert (await told.z.client.get(path)).status_code == 200
        check = await told.z.client.post("/check")
        assert check.status_code == 202
        finished = await told.z.until(
            lambda: told.z.get(f"/check/{check.json()['id']}"), lambda shown: shown["finished_at"]
        )
        assert finished["total"] == 1

        hook = told.z.hooks[unknown]
        future_hook = hook.replace("/evolution_api/", "/future_gateway/")
        assert await told.z.post(future_hook, {"event": "x"}) == 503
        assert await told.z.post(future_hook + "x", {"event": "x"}) == 401
        assert await told.z.post(hook, {"event": "x"}) == 401

        found = await findings(dsn)
        assert later.url in found["unknown_provider"]
        assert "future_gateway" in found["unknown_provider"]
        assert "unchecked" not in found
        assert await errors(told, caplog) == []
        assert (await told.z.client.post(f"/channels/{unknown}/pause")).status_code == 200
        assert (await told.z.client.delete(f"/channels/{unknown}")).status_code == 204


async def test_command_that_probes_says_clearly_that_it_does_not_know_a_provider(
    dsn: str, admin: Connection
) -> None:
    async with story(dsn) as told:
        later = await told.fleet.evolution()
        unknown = await told.watch(later, later.add("loja-02"))
    await become_future(admin, later.url)

    keys = urlsafe_b64encode(KEY).decode()
    said = await command("check", unknown, ZAPWATCH_DATABASE_URL=dsn, ZAPWATCH_SECRET_KEYS=keys)

    assert said.code == 1
    assert "this version doesn't know future_gateway" in said.err


async def test_trial_of_a_gateway_of_an_unknown_provider_is_put_off(
    dsn: str, connection: Connection, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with story(dsn) as told:
        later = await told.fleet.evolution()
        await told.watch(later, later.add("loja-02"))
        await become_future(admin, later.url)

        await connection.execute("update zapwatch_gateways set state = 'down', try_at = now()")

        tried = "select tries from zapwatch_gateways where try_at > now()"
        await told.z.until(lambda: connection.fetchval(tried), lambda tries: tries and tries >= 2)
        assert await errors(told, caplog) == []


async def test_words_that_only_a_later_version_knows_disturb_nothing(
    dsn: str, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with story(dsn) as told:
        host, later = await told.fleet.evolution(), await told.fleet.evolution()
        good, odd = host.add("loja-01"), host.add("loja-02")
        channel, strange = await told.watch(host, good), await told.watch(host, odd)
        await told.watch(later, later.add("loja-03"))
        await admin.execute(WIDENED)
        async with admin.transaction():
            for statement in WORDS:
                await admin.execute(statement, strange)
            await admin.execute(
                "update zapwatch_gateways set state = 'future_state' where base_url = $1", later.url
            )

        asked = [f"/channels/{strange}/{what}" for what in ("state", "incidents", "events")]
        for path in ("/channels", "/incidents", "/gateways", "/metrics", *asked):
            assert (await told.z.client.get(path)).status_code == 200
        await told.z.hear(channel, Evolution("loja-01").message())
        await told.becomes(strange, "open")
        assert (await told.z.incidents(strange))[0]["resolved_at"] is not None
        good.vanish()
        await told.becomes(channel, "disconnected", "session_missing")
        assert "unchecked" not in await findings(dsn)
        assert await errors(told, caplog) == []
