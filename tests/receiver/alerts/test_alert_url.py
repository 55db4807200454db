"""The setting ALERT_URL: one destination of operators, however often the service starts."""

import asyncio
from typing import Any

import pytest

from db.connection.types import Connection
from db.vault import Vault
from receiver.alerts.alert_url import keep_alert_url
from receiver.alerts.notifiers import NOTIFIERS
from receiver.settings import SettingsError, load_settings
from tests.conftest import connected
from tests.receiver.alerts.sink import open_sink
from tests.support.service import KEY, zapwatch

URL = "https://hooks.example/zapwatch?key=s3cret"


async def started(dsn: str, url: str | None) -> list[dict[str, Any]]:
    """Start the service, end it, and return the destinations that it then had."""
    async with zapwatch(dsn, alert_url=url) as z:
        return list((await z.get("/destinations"))["items"])


async def test_the_setting_makes_one_destination_of_operators(dsn: str) -> None:
    [made] = await started(dsn, URL)
    [again] = await started(dsn, URL)
    [still] = await started(dsn, None)

    assert (made["kind"], made["name"], made["tenant_id"]) == ("webhook", "ALERT_URL", None)
    assert made["config"] == {"url": "https://hooks.example/zapwatch?***"}
    assert made["events"] == ["incident.opened", "incident.resolved", "gateway.opened", "gateway.resolved"]
    assert made == again == still


async def test_slack_is_known_by_its_host(dsn: str) -> None:
    [made] = await started(dsn, "https://hooks.slack.com/services/T0/B0/s3cret")

    assert (made["kind"], made["config"]) == ("slack", {"url": "https://hooks.slack.com/***"})


async def test_replicas_that_start_at_once_make_one(dsn: str) -> None:
    async def start() -> None:
        async with connected(dsn) as connection:
            await ready.wait()
            await keep_alert_url(connection, Vault([KEY]), NOTIFIERS, URL)

    ready = asyncio.Barrier(5)

    await asyncio.gather(*(start() for _ in range(5)))

    assert len(await started(dsn, URL)) == 1


async def test_a_new_address_moves_what_the_setting_made(dsn: str) -> None:
    [before] = await started(dsn, URL)

    [after] = await started(dsn, "https://elsewhere.example/")

    assert after["id"] == before["id"]
    assert after["config"] == {"url": "https://elsewhere.example/"}


async def test_one_that_was_renamed_is_the_operators_own(dsn: str) -> None:
    async with zapwatch(dsn, alert_url=URL) as z:
        [made] = (await z.get("/destinations"))["items"]
        await z.client.patch(f"/destinations/{made['id']}", json={"name": "Hub", "rotate_secret": True})

    same = await started(dsn, URL)
    more = await started(dsn, "https://elsewhere.example/")

    assert [item["name"] for item in same] == ["Hub"]
    assert {item["name"] for item in more} == {"Hub", "ALERT_URL"}


async def test_operators_try_it_wherever_it_is(dsn: str) -> None:
    async with open_sink() as sink, zapwatch(dsn, alert_url=sink.url) as z:
        [made] = (await z.get("/destinations"))["items"]

        answer = await z.client.post(f"/destinations/{made['id']}/test")

    assert answer.json()["ok"] is True
    assert sink.only.json["type"] == "test"


async def test_the_address_is_sealed(dsn: str, admin: Connection) -> None:
    await started(dsn, URL)

    sealed = await admin.fetchval("select config from zapwatch_destinations")

    assert b"s3cret" not in sealed


@pytest.mark.parametrize(
    "url", ["mailto:ops@example.com", "hooks.example", "https://", "https://x:0/", "ftp://x"]
)
def test_what_is_no_web_address_stops_the_start_and_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({"ZAPWATCH_ALERT_URL": url})

    assert error.value.problems == ["ZAPWATCH_ALERT_URL must be an http or https address with a host"]
