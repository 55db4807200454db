"""A host in one command: every instance that a gateway lists becomes a channel, once."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault, Fleet, open_fleet
from tests.factories import Evolution
from tests.support.command import zapwatch
from tests.support.service import KEY, Zapwatch, served

SECRET_KEY = base64.urlsafe_b64encode(KEY).decode()


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with open_fleet() as opened:
        yield opened


@pytest.fixture
def environ(dsn: str) -> dict[str, str]:
    return {"ZAPWATCH_DATABASE_URL": dsn, "ZAPWATCH_SECRET_KEYS": SECRET_KEY, "COLUMNS": "200"}


async def register(z: Zapwatch, provider: str, host: Any) -> tuple[str, str]:
    """Register a gateway; return its id and its webhook address."""
    body = {"provider": provider, "base_url": host.url, "api_key": host.key}
    answer = await z.client.post("/gateways", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], answer.json()["webhook_url"]


async def states(z: Zapwatch) -> dict[str, str]:
    """Return the state of each instance."""
    return {item["instance"]: item["state"] for item in (await z.get("/channels", limit="500"))["items"]}


@pytest.mark.parametrize("version", ["1.8.2", "2.3.6"])
async def test_every_instance_of_an_evolution_server_is_registered_and_probed(
    dsn: str, fleet: Fleet, version: str
) -> None:
    host = await fleet.evolution(version)
    for name, state in (("loja-1", "open"), ("loja 2/ção", "connecting"), ("loja-3", "close")):
        host.add(name, state)
    async with served(dsn) as z:
        gateway, hook = await register(z, "evolution_api", host)

        answer = await z.client.post(f"/gateways/{gateway}/import")

        assert (answer.status_code, answer.json()["total"]) == (202, 3)
        await z.until(lambda: states(z), lambda told: told.get("loja-1") == "open")
        await z.until(
            lambda: z.get(f"/check/{answer.json()['id']}"), lambda check: check["finished_at"] is not None
        )
        assert await states(z) == {"loja-1": "open", "loja 2/ção": "connecting", "loja-3": "disconnected"}
        assert await z.post(hook, Evolution("loja-1").update("close", 401)) == 204
        await z.until(lambda: states(z), lambda told: told["loja-1"] == "disconnected")


async def test_channels_of_an_import_were_put_there_by_an_operator(
    dsn: str, fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.evolution()
    host.add("loja-1")
    async with served(dsn) as z:
        gateway, _ = await register(z, "evolution_api", host)

        await z.client.post(f"/gateways/{gateway}/import")

    assert await connection.fetchval("select put_by from zapwatch_channels") == "operator"


async def test_import_once_more_adds_what_is_new_and_changes_nothing(dsn: str, fleet: Fleet) -> None:
    host = await fleet.evolution()
    for n in range(3):
        host.add(f"loja-{n}")
    async with served(dsn) as z:
        gateway, _ = await register(z, "evolution_api", host)
        known = await z.channel("loja-0", api_url=host.url, api_key=host.key, name="Loja Centro")
        await z.client.post(f"/gateways/{gateway}/import")
        before = await z.get("/channels")
        host.add("loja-3")

        answers = await asyncio.gather(*(z.client.post(f"/gateways/{gateway}/import") for _ in range(4)))

        assert {answer.status_code for answer in answers} == {202}
        assert sum(answer.json()["new"] for answer in answers) == 1
        after = {item["channel_id"]: item["instance"] for item in (await z.get("/channels"))["items"]}
        assert sorted(after.values()) == ["loja-0", "loja-1", "loja-2", "loja-3"]
        assert {item["channel_id"] for item in before["items"]} < after.keys()
        assert (await z.state(known))["name"] == "Loja Centro"


async def test_instance_with_an_owner_has_been_open_and_the_others_wait_for_their_first_scan(
    dsn: str, fleet: Fleet
) -> None:
    host = await fleet.evolution()
    host.add("new", "qr")
    host.add("lost").lose()
    async with served(dsn) as z:
        gateway, hook = await register(z, "evolution_api", host)
        await z.client.post(f"/gateways/{gateway}/import")
        items = (await z.get("/channels"))["items"]
        ids = {item["instance"]: item["channel_id"] for item in items}

        for name in ids:
            assert await z.post(hook, Evolution(name).qr()) == 204

        assert (await z.stands(ids["lost"]))[1] == "scan_needed"
        assert (await z.stands(ids["new"]))[1] == "qr_shown"


async def test_instances_of_an_account_at_wapi_are_registered_with_their_own_keys(
    dsn: str, fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.wapi()
    names = [host.add().name for _ in range(205)]
    async with served(dsn) as z:
        gateway, _ = await register(z, "wapi", host)

        answer = await z.client.post(f"/gateways/{gateway}/import")

        assert (answer.status_code, answer.json()["new"]) == (202, 205)
        await z.until(lambda: states(z), lambda told: set(told.values()) == {"open"})
        assert (await states(z)).keys() == set(names)
    phones = await connection.fetchval("select count(distinct phone_number) from notification_channels")
    sealed = await connection.fetchval(
        "select bool_and(position($1 in api_key) = 0) from zapwatch_channels",
        host.channels[names[0]].key.encode(),
    )
    assert phones == len({instance.phone for instance in host.channels.values()})
    assert sealed


async def test_token_that_changed_at_wapi_is_renewed_by_the_next_import(dsn: str, fleet: Fleet) -> None:
    host = await fleet.wapi()
    instance, other = host.add(), host.add()
    async with served(dsn) as z:
        gateway, _ = await register(z, "wapi", host)
        await z.client.post(f"/gateways/{gateway}/import")
        await z.until(lambda: states(z), lambda told: set(told.values()) == {"open"})
        instance.key = "another-token"
        ids = {item["instance"]: item["channel_id"] for item in (await z.get("/channels"))["items"]}
        refused = await z.client.post(f"/channels/{ids[instance.name]}/check")
        assert refused.json()["outcome"] == "unauthorized"

        answer = await z.client.post(f"/gateways/{gateway}/import")

        assert (answer.status_code, answer.json()["new"]) == (202, 0)
        asked = await z.client.post(f"/channels/{ids[instance.name]}/check")
        assert asked.json()["outcome"] == "open"
        assert (await z.client.post(f"/channels/{ids[other.name]}/check")).json()["outcome"] == "open"


async def test_key_that_an_operator_gave_is_not_replaced_by_an_import(dsn: str, fleet: Fleet) -> None:
    host = await fleet.wapi()
    imported, registered = host.add(), host.add()
    async with served(dsn) as z:
        gateway, _ = await register(z, "wapi", host)
        known = await z.channel(registered.name, "wapi", api_url=host.url, api_key="of-the-operator")
        await z.client.post(f"/gateways/{gateway}/import")
        ids = {item["instance"]: item["channel_id"] for item in (await z.get("/channels"))["items"]}
        given = {"api_key": "of-the-operator"}
        assert (await z.client.patch(f"/channels/{ids[imported.name]}", json=given)).status_code == 200
        for instance in (imported, registered):
            instance.key = "of-the-list"

        await z.client.post(f"/gateways/{gateway}/import")

        for instance in (imported, registered):
            instance.key = "of-the-operator"
        for channel in (ids[imported.name], known):
            assert (await z.client.post(f"/channels/{channel}/check")).json()["outcome"] == "open"


async def test_key_that_the_list_confirmed_follows_it_from_then_on(
    dsn: str, fleet: Fleet, connection: Connection
) -> None:
    """Channels that were imported before it was noted where their keys came from."""
    host = await fleet.wapi()
    instance = host.add()
    async with served(dsn) as z:
        gateway, _ = await register(z, "wapi", host)
        await z.client.post(f"/gateways/{gateway}/import")
        await connection.execute("update zapwatch_channels set listed_key_hash = null")
        channel = (await z.get("/channels"))["items"][0]["channel_id"]
        await z.client.post(f"/gateways/{gateway}/import")
        instance.key = "another-token"

        await z.client.post(f"/gateways/{gateway}/import")

        assert (await z.client.post(f"/channels/{channel}/check")).json()["outcome"] == "open"


async def test_new_channels_are_those_of_the_tenant_that_is_named(dsn: str, fleet: Fleet) -> None:
    host = await fleet.evolution()
    host.add("loja-1")
    async with served(dsn) as z:
        tenant = (await z.client.post("/tenants", json={"name": "Rede"})).json()["id"]
        gateway, _ = await register(z, "evolution_api", host)

        unknown = await z.client.post(f"/gateways/{gateway}/import", params={"tenant_id": str(uuid4())})
        answer = await z.client.post(f"/gateways/{gateway}/import", params={"tenant_id": tenant})

        assert (unknown.status_code, answer.status_code) == (422, 202)
        assert [item["tenant_id"] for item in (await z.get("/channels"))["items"]] == [tenant]


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.SERVER_ERROR, Fault.HTML_NOT_FOUND, Fault.HTML_200])
async def test_gateway_that_lists_nothing_is_said_to(dsn: str, fleet: Fleet, fault: Fault) -> None:
    host = await fleet.evolution()
    host.add("loja-1")
    async with served(dsn) as z:
        gateway, _ = await register(z, "evolution_api", host)
        host.fault = fault

        answer = await z.client.post(f"/gateways/{gateway}/import")

        assert answer.status_code == 502
        assert "gateway" in answer.json()["detail"]
        assert await states(z) == {}


async def test_host_is_imported_in_one_command(dsn: str, environ: dict[str, str], fleet: Fleet) -> None:
    host = await fleet.evolution()
    for n in range(700):
        host.add(f"loja-{n}")
    arguments = ("import", "evolution_api", "--url", host.url, "--api-key", host.key)

    first = await zapwatch(*arguments, **environ)
    again = await zapwatch(*arguments, **environ)

    assert (first.code, again.code) == (0, 0)
    assert first.out.startswith("700 instances are there: 700 new channels, 0 known before.\n")
    assert "/webhooks/evolution_api/" in first.out
    assert "700/700" in first.err
    assert again.out == "700 instances are there: 0 new channels, 700 known before.\n"
    assert host.key not in first.out + first.err + again.out + again.err
    async with served(dsn) as z:
        await z.until(lambda: states(z), lambda told: set(told.values()) == {"open"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evolution_api", "--api-key", "wrong"), "refused the key (HTTP 401)"),
        (("evolution_api", "--api-key", "right", "--tenant", str(uuid4())), "no such tenant"),
        (("waha", "--api-key", "k"), "'waha' is not one of"),
        (("evolution_api", "--api-key", "right", "--traffic"), "go with --set-webhooks"),
    ],
)
async def test_command_says_what_is_wrong(
    environ: dict[str, str], connection: Connection, fleet: Fleet, arguments: tuple[str, ...], words: str
) -> None:
    host = await fleet.evolution()
    host.add("loja-1")
    spoken = [host.key if word == "right" else word for word in arguments]

    said = await zapwatch("import", spoken[0], "--url", host.url, *spoken[1:], **environ)

    assert said.code != 0
    assert words in said.err
    assert "Traceback" not in said.err
    assert await connection.fetchval("select count(*) from zapwatch_channels") == 0


async def test_address_of_a_gateway_that_is_not_hosted_for_all_must_be_given(environ: dict[str, str]) -> None:
    said = await zapwatch("import", "evolution_api", "--api-key", "k", **environ)

    assert said.code == 2
    assert "--url" in said.err


async def test_gateway_that_can_not_be_asked_is_said_so(
    dsn: str, fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.evolution()
    async with served(dsn) as z:
        gateway, _ = await register(z, "evolution_api", host)
        statements = (
            "update zapwatch_gateways set api_key = 'x'",
            "update zapwatch_gateways set api_key = null",
        )
        for statement in statements:
            await connection.execute(statement)

            answer = await z.client.post(f"/gateways/{gateway}/import")

            assert answer.status_code == 409
        assert (await z.client.post(f"/gateways/{uuid4()}/import")).status_code == 404


async def rotated(z: Zapwatch, fleet: Fleet) -> tuple[Any, list[str], str]:
    """Return a host whose global key has changed, its channels with the former key, and its gateway."""
    host = await fleet.evolution()
    tenants = [(await z.client.post("/tenants", json={"name": name})).json()["id"] for name in "ab"]
    channels = []
    for n in range(4):
        host.add(f"loja-{n}")
        more = {"api_url": host.url, "api_key": host.key, "tenant_id": tenants[n % 2]}
        channels.append(await z.channel(f"loja-{n}", **more))
    gateway, _ = await register(z, "evolution_api", host)
    await z.until(lambda: states(z), lambda told: set(told.values()) == {"open"})
    host.key = "a-new-key"
    return host, channels, gateway


async def outcomes(z: Zapwatch, channels: list[str]) -> set[str]:
    """Return what a check of these channels says."""
    answers = [await z.client.post(f"/channels/{channel}/check") for channel in channels]
    return {answer.json()["outcome"] for answer in answers}


async def own_key_count(connection: Connection) -> int:
    """Return how many channels have a key of their own."""
    found: int = await connection.fetchval("select count(*) from zapwatch_channels where api_key is not null")
    return found


async def test_refused_keys_are_counted_by_an_import_with_one_that_works_and_replaced_on_wish(
    dsn: str, fleet: Fleet, connection: Connection
) -> None:
    async with served(dsn) as z:
        host, channels, gateway = await rotated(z, fleet)
        path = f"/gateways/{gateway}/import"

        refused = await z.client.post(path)
        offered = (await z.client.post(path, json={"api_key": host.key})).json()
        before = await outcomes(z, channels), await own_key_count(connection)
        replaced = (await z.client.post(path, json={"replace_keys": True})).json()
        again = (await z.client.post(path, json={"replace_keys": True})).json()

        assert refused.status_code == 502
        assert (offered["refused_keys"], offered["replaced_keys"]) == (4, 0)
        assert "replace_keys" in offered["hint"]
        assert before == ({"unauthorized"}, 4)
        assert (replaced["refused_keys"], replaced["replaced_keys"], replaced["hint"]) == (4, 4, None)
        assert (again["refused_keys"], again["replaced_keys"]) == (0, 0)
        assert await outcomes(z, channels) == {"open"}
        assert await own_key_count(connection) == 0


async def test_command_replaces_refused_keys_and_none_that_works(
    dsn: str, fleet: Fleet, connection: Connection, environ: dict[str, str]
) -> None:
    async with served(dsn) as z:
        host, channels, _ = await rotated(z, fleet)
        host.add("loja-4")
        working = await z.channel("loja-4", api_url=host.url, api_key=host.key)
        silent = host.channels["loja-3"]
        silent.fault = Fault.RESET  # no answer says that its key is refused
        command = ("import", "evolution_api", "--url", host.url, "--api-key", host.key)

        offered = await zapwatch(*command, **environ)
        replaced = await zapwatch(*command, "--replace-keys", **environ)

        assert "Refused keys of channels: 3. Run it again with --replace-keys" in offered.out
        assert "Refused keys of channels: 3; replaced: 3." in replaced.out
        assert await outcomes(z, [*channels[:3], working]) == {"open"}
        assert await own_key_count(connection) == 2


async def test_refused_token_that_an_operator_gave_is_replaced_by_the_listed_one_at_wapi(
    dsn: str, fleet: Fleet
) -> None:
    host = await fleet.wapi()
    instance = host.add()
    async with served(dsn) as z:
        channel = await z.channel(instance.name, "wapi", api_url=host.url, api_key="wrong")
        gateway, _ = await register(z, "wapi", host)

        answer = await z.client.post(f"/gateways/{gateway}/import", json={"replace_keys": True})

        assert (answer.json()["refused_keys"], answer.json()["replaced_keys"]) == (1, 1)
        assert await outcomes(z, [channel]) == {"open"}


async def test_refused_key_of_a_tenant_is_left_to_the_tenant(
    dsn: str, fleet: Fleet, connection: Connection
) -> None:
    async with served(dsn) as z:
        _, _, gateway = await rotated(z, fleet)
        await connection.execute("update zapwatch_channels set put_by = 'tenant' where instance = 'loja-0'")

        body = {"api_key": "a-new-key", "replace_keys": True}
        answer = (await z.client.post(f"/gateways/{gateway}/import", json=body)).json()

        assert (answer["refused_keys"], answer["replaced_keys"]) == (3, 3)
        assert await own_key_count(connection) == 1
