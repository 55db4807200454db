"""`zapwatch doctor` on a real database, with gateways on loopback that answer what a test wants."""

import asyncio
import base64
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from db.connection.types import Connection
from db.diagnosis import Finding, Severity, note, problem
from db.embedded.server import run_embedded
from db.migrate import migrate
from db.registry.channels import ChannelSpec, register_channel
from db.registry.gateways import register_gateway
from db.registry.tokens import create_channel_token
from db.vault import Vault
from receiver.doctor import (
    AT_ONCE,
    IN_ALL,
    PER_GATEWAY,
    Examination,
    check_free_disk,
    check_public_url,
    examine,
)
from receiver.outbound.client import open_client
from receiver.providers import PROVIDERS
from receiver.settings import Settings
from tests.conftest import connected, reachable_folder
from tests.support.command import zapwatch as run_zapwatch

SAMPLES = Path(__file__).parents[2] / "samples"
KEY = bytes(range(32))
VAULT = Vault([KEY])
API_KEY = "an-api-key-of-the-tests"
PUBLIC = "https://watch.example"


@dataclass
class Gateway:
    """What a gateway answers by the name of the instance, and how it was asked."""

    url: str = ""
    webhooks: dict[str, tuple[int, object]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    latency: float = 0
    """Seconds that it takes to answer, so that calls made side by side overlap."""
    busy: int = 0
    busiest: int = 0

    async def find(self, request: Request) -> Response:
        """Answer Evolution's webhook/find and W-API's fetch-instance."""
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        await asyncio.sleep(self.latency)  # the gateway's own
        self.busy -= 1
        instance = request.path_params.get("instance") or request.query_params["instanceId"]
        key = request.headers.get("apikey") or request.headers["Authorization"]
        self.asked.append((instance, key))
        status, body = self.webhooks.get(instance, (200, None))
        return JSONResponse(body, status)


@asynccontextmanager
async def serving(routes: list[Route], **options: Any) -> AsyncIterator[str]:
    """Yield the host and port of a server on loopback with these routes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off", **options)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server._serve(sockets=[listener]))
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    routes = [
        Route("/webhook/find/{instance}", made.find),
        Route("/instance/fetch-instance", made.find),
    ]
    async with serving(routes) as place:
        made.url = f"http://{place}"
        yield made


@pytest.fixture
def settings(dsn: str) -> Settings:
    return Settings(database_url=dsn, secret_keys=(KEY,))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[str]:
    """Yield the database that the settings name."""
    assert settings.database_url is not None
    yield settings.database_url


async def found_by(settings: Settings) -> dict[str, Finding]:
    """Return the findings by their codes."""
    examination = await examine(settings, opened)
    found = {finding.code: finding for finding in examination.findings}
    assert len(found) == len(examination.findings)
    return found


async def register(
    connection: Connection,
    gateway: Gateway,
    instance: str = "loja",
    provider: str = "evolution_api",
    **more: Any,
) -> tuple[UUID, str]:
    """Register a channel with a key and return its id and its webhook token."""
    fields = {"api_url": gateway.url, "api_key": API_KEY, **more}
    return await register_channel(
        connection, VAULT, ChannelSpec(provider=provider, instance=instance, **fields)
    )


def slot(url: str, **more: object) -> tuple[int, object]:
    """Return how Evolution 2 answers when its webhook is set to this address."""
    row = json.loads((SAMPLES / "evolution/webhook_find.json").read_text())
    return 200, {**row, "url": url, **more}


def problems(found: Mapping[str, Finding]) -> set[str]:
    return {code for code, finding in found.items() if finding.severity is Severity.PROBLEM}


async def test_an_installation_in_order_has_notes_only(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    _, token = await register(connection, gateway)
    gateway.webhooks["loja"] = slot(f"{PUBLIC}/webhooks/evolution_api/{token}")
    await connection.execute("insert into zapwatch_destinations (kind, config) values ('webhook', '')")

    async with serving([Route("/healthz", lambda _: JSONResponse({"status": "alive"}))]) as place:
        found = await found_by(replace(settings, public_url=f"http://{place}"))

    assert problems(found) == set()
    assert set(found) == {"tenant_not_told", "disk", "unknown_version", "other_host"}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (slot(f"{PUBLIC}/webhooks/evolution_api/TOKEN"), None),
        (slot(f"{PUBLIC}/webhooks/evolution_api/TOKEN/connection-update"), None),
        (slot(f"{PUBLIC}:443/webhooks/evolution_api/TOKEN?x=1"), None),
        ((200, {"enabled": True, "url": f"{PUBLIC}/webhooks/evolution_api/TOKEN", "events": []}), None),
        (slot("https://bot.example/hooks/s3cret-path"), "foreign_webhook"),
        (slot("https://bot.example/webhooks/evolution_api/zw_s3cret"), "foreign_webhook"),
        (slot("http://[bad/webhooks/x"), "foreign_webhook"),
        (slot(f"{PUBLIC}/webhooks/evolution_api/zw_s3cret"), "refused_webhook"),
        (slot(f"{PUBLIC}/webhooks/wapi/TOKEN"), "refused_webhook"),
        (slot(f"{PUBLIC}/webhooks/evolution_api/REVOKED"), "refused_webhook"),
        (slot(f"{PUBLIC}/webhooks/evolution_api/OTHER"), "crossed_webhook"),
        (slot("http://zapwatch:8080/webhooks/evolution_api/TOKEN"), "other_host"),
        ((200, None), "no_webhook"),
        ((200, {"enabled": False, "url": ""}), "no_webhook"),
        (slot(f"{PUBLIC}/webhooks/evolution_api/TOKEN", enabled=False), "no_webhook"),
        (slot(f"{PUBLIC}/webhooks/evolution_api/TOKEN", events=["MESSAGES_UPSERT"]), "no_webhook"),
        ((404, {"status": 404}), "unasked"),
        ((200, "<html>"), "unasked"),
    ],
)
async def test_where_a_gateway_sends_is_judged(
    connection: Connection, settings: Settings, gateway: Gateway, answer: tuple[int, Any], code: str | None
) -> None:
    channel, revoked = await register(connection, gateway, name="Centro")
    token = await create_channel_token(connection, channel, revoke_others=True)
    _, other = await register(connection, gateway, "filial")
    tokens = {"TOKEN": token, "REVOKED": revoked, "OTHER": other}
    text = json.dumps(answer[1])
    for word, value in tokens.items():
        text = text.replace(word, value)
    gateway.webhooks["loja"] = answer[0], json.loads(text)
    gateway.webhooks["filial"] = slot(f"{PUBLIC}/webhooks/evolution_api/{other}")

    found = await found_by(replace(settings, public_url=PUBLIC))
    webhooks = {
        code: finding
        for code, finding in found.items()
        if "webhook" in code or code in ("other_host", "unasked")
    }

    assert list(webhooks) == ([] if code is None else [code])
    for finding in webhooks.values():
        assert f"(1): {channel} (Centro, loja at {gateway.url})" in finding.what
        assert "s3cret" not in finding.what
        assert (finding.severity is Severity.NOTE) == (finding.code in ("other_host", "unasked"))
    assert ("loja", API_KEY) in gateway.asked


async def test_foreign_webhook_is_named_by_its_host_alone(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    await register(connection, gateway)
    gateway.webhooks["loja"] = slot("https://user:pw@bot.example/hooks/s3cret?key=s3cret")

    found = await found_by(settings)

    assert found["foreign_webhook"].what.endswith(" to bot.example.")


async def test_channel_fed_by_its_gateways_webhook_needs_none_of_its_own(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    channel, _ = await register(connection, gateway)
    before = await found_by(settings)
    await register_gateway(connection, VAULT, "evolution_api", gateway.url, API_KEY, None)
    unheard = await found_by(settings)
    await connection.execute(
        "update zapwatch_states set last_event_at = now() where channel_id = $1", channel
    )

    heard = await found_by(settings)

    assert "no_webhook" in problems(before)
    assert "within 120 s" in before["no_webhook"].what
    assert "no_webhook" in problems(unheard)
    assert heard["shared_webhook"].severity is Severity.NOTE


@pytest.mark.parametrize(
    ("lost", "found_again", "code"),
    [
        ("OURS", "OURS", None),
        ("OURS", "", None),
        ("", "OURS", "no_webhook"),
        ("https://bot.example/", "OURS", "foreign_webhook"),
        ("OURS", "https://bot.example/", "foreign_webhook"),
    ],
)
async def test_both_of_w_apis_addresses_are_judged(
    connection: Connection,
    settings: Settings,
    gateway: Gateway,
    lost: str,
    found_again: str,
    code: str | None,
) -> None:
    _, token = await register(connection, gateway, "LITE-1", "wapi")
    ours = f"{PUBLIC}/webhooks/wapi/{token}"
    record = json.loads((SAMPLES / "wapi/resp_200_fetch_instance.json").read_text())
    record["webhookDisconnectedUrl"] = lost.replace("OURS", ours)
    record["webhookConnectedUrl"] = found_again.replace("OURS", ours)
    gateway.webhooks["LITE-1"] = 200, record

    found = await found_by(replace(settings, public_url=PUBLIC))

    assert [code for code in found if code.endswith("_webhook")] == ([] if code is None else [code])
    assert gateway.asked == [("LITE-1", f"Bearer {API_KEY}")]


async def test_gateways_that_can_not_be_asked_are_not(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    await register(connection, gateway, provider="waha")
    await register(connection, gateway, provider="twilio")

    found = await found_by(settings)

    assert gateway.asked == []
    assert not [code for code in found if "webhook" in code or code == "unasked"]


async def test_a_sample_is_asked_few_at_a_time_and_the_longest_silent_first(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    gateway.latency = 0.02
    for number in range(PER_GATEWAY + 5):
        channel, _ = await register(connection, gateway, f"i{number}")
        await connection.execute(
            "update zapwatch_states set last_event_at = now() - make_interval(hours => $2)"
            " where channel_id = $1",
            channel,
            number,
        )

    found = await found_by(settings)

    assert {instance for instance, _ in gateway.asked} == {
        f"i{number}" for number in range(5, PER_GATEWAY + 5)
    }
    assert 1 < gateway.busiest <= AT_ONCE
    assert found["sample"].what == "Only 20 of 25 channels were asked where their webhooks go."
    assert f"({PER_GATEWAY}): " in found["no_webhook"].what
    assert f" and {PER_GATEWAY - 5} more." in found["no_webhook"].what


async def test_many_gateways_share_the_whole_sample(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    places = IN_ALL // PER_GATEWAY + 2
    for place in range(places):
        base = Gateway(url=gateway.url.replace("127.0.0.1", f"127.0.0.{place + 2}"))
        for number in range(PER_GATEWAY):
            await register(connection, base, f"i{number}")

    found = await found_by(settings)

    assert found["sample"].what.startswith(f"Only {IN_ALL} of {places * PER_GATEWAY} channels")


async def test_a_gateway_that_is_away_is_not_waited_for_again_and_again(
    connection: Connection, settings: Settings
) -> None:
    connections = 0

    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        away = Gateway(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for number in range(PER_GATEWAY):
            await register(connection, away, f"i{number}")

        found = await found_by(settings)

    assert connections <= 2 * AT_ONCE  # each call is tried twice
    assert found["unasked"].severity is Severity.NOTE
    assert f" (1): {away.url}: no answer (" in found["unasked"].what


async def test_keys_that_do_not_open_do_not_fit_or_are_refused_are_found(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    good, _ = await register(connection, gateway, "good")
    refused, _ = await register(connection, gateway, "refused")
    odd, _ = await register(connection, gateway, "odd", api_key="chave-ção\n")
    new = ChannelSpec(provider="evolution_api", instance="sealed", api_url=gateway.url, api_key=API_KEY)
    sealed, _ = await register_channel(connection, Vault([bytes(32)]), new)
    await register_gateway(connection, Vault([bytes(32)]), "waha", "http://waha.example", API_KEY, None)
    await connection.execute(
        "update zapwatch_states set state = 'error', reason = 'unauthorized' where channel_id = $1", refused
    )

    found = await found_by(settings)

    assert {"wrong_key", "sealed_key", "odd_key"} <= problems(found)
    assert f"(1): {refused} (refused at {gateway.url})." in found["wrong_key"].what
    assert "(2): the gateway http://waha.example, " + str(sealed) in found["sealed_key"].what
    assert f"(1): {odd} (odd" in found["odd_key"].what
    assert {instance for instance, _ in gateway.asked} == {"good", "refused"}
    assert str(good) not in "".join(found[code].what for code in ("wrong_key", "sealed_key", "odd_key"))


async def test_a_twilio_key_may_have_any_characters(connection: Connection, settings: Settings) -> None:
    new = ChannelSpec(provider="twilio", instance="XE1", api_key="AC1:ção")
    await register_channel(connection, VAULT, new)

    assert "odd_key" not in await found_by(settings)


async def test_registrations_clocks_and_versions_are_judged(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    await register(connection, gateway, "bare", api_key=None)
    await connection.execute(
        "update zapwatch_gateways set version = '2.4.0-rc1', clock = '{\"offset\": -10800}'"
    )
    await connection.execute(
        "insert into zapwatch_gateways (provider, base_url) values ('waha', 'http://idle')"
    )

    found = await found_by(settings)

    assert found["unconfigured"].severity is Severity.PROBLEM
    assert f"UTC-03:00 (1): {gateway.url}." in found["zone"].what
    assert f"(1): {gateway.url}." in found["release_candidate"].what
    assert "unknown_version" not in found


async def test_webhook_addresses_of_this_machine_are_a_note_once_there_are_channels(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    before = await found_by(settings)
    await register(connection, gateway)
    after = await found_by(settings)

    assert "no_public_url" not in before
    assert after["no_public_url"].severity is Severity.NOTE
    assert "http://127.0.0.1:8080, which only gateways on this machine" in after["no_public_url"].what
    assert "ZAPWATCH_PUBLIC_URL" in after["no_public_url"].do


async def public_url_findings(url: str, seconds: float = 5) -> list[Finding]:
    async with open_client(timedelta(seconds=seconds)) as client:
        return await check_public_url(url, client)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (JSONResponse({"status": "alive"}), None),
        (JSONResponse({"status": "other"}), "another page answers there"),
        (Response("<html>welcome</html>"), "another page answers there"),
        (Response("Bad gateway", 502), "it answers HTTP 502"),
        (Response("", 301, {"Location": "https://elsewhere.example/"}), "it answers HTTP 301"),
    ],
)
async def test_public_url_must_lead_to_a_service_that_is_alive(answer: Response, words: str | None) -> None:
    async def healthz(request: Request) -> Response:
        return answer

    async with serving([Route("/base/healthz", healthz)]) as place:
        found = await public_url_findings(f"http://{place}/base")

    assert [finding.severity for finding in found] == ([] if words is None else [Severity.PROBLEM])
    assert all(finding.what.endswith(f"does not lead here: {words}.") for finding in found)


async def test_public_url_that_nobody_answers_is_said_to_be_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    [found] = await public_url_findings(f"http://127.0.0.1:{port}")

    assert "the connection is refused" in found.what


async def test_public_url_that_hangs_is_said_to_give_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        [found] = await public_url_findings(f"http://127.0.0.1:{listener.getsockname()[1]}", 0.2)

    assert "no answer within" in found.what


async def test_public_url_with_tls_where_there_is_none_is_said_to_be_so() -> None:
    async with serving([]) as place:
        [found] = await public_url_findings(f"https://{place}")

    assert "TLS: " in found.what


async def test_public_url_with_a_certificate_that_nobody_knows_is_said_to_be_so(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "both.pem")

    async with serving([], ssl_certfile=certificate) as place:
        [found] = await public_url_findings(f"https://{place}")

    assert "TLS: self-signed certificate" in found.what


def self_signed(path: Path) -> Path:
    """Write a key and a certificate by itself to this file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    key_format = PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(Encoding.PEM, key_format, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return path


async def test_public_url_whose_name_is_unknown_is_said_to_be_so() -> None:
    [found] = await public_url_findings("https://watch.invalid")

    assert "its name is unknown" in found.what


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://watch.invalid", True),
        ("https://watch.invalid", False),
        ("http://zapwatch", False),
        ("http://127.0.0.1:9", False),
        ("http://[::1]:9", False),
        ("http://watch.local", False),
    ],
)
async def test_public_url_without_tls_is_a_note_unless_it_stays_near(url: str, plain: bool) -> None:
    found = await public_url_findings(url)

    assert ("no_tls" in {finding.code for finding in found}) == plain


async def test_public_url_is_looked_at_though_the_database_is_away(settings: Settings) -> None:
    assert settings.database_url is not None
    away = (
        urlsplit(settings.database_url)._replace(netloc="zapwatch:pass-word@", query="host=/nowhere").geturl()
    )

    found = await found_by(replace(settings, database_url=away, public_url="http://127.0.0.1:9"))

    assert problems(found) == {"no_database", "public_url"}
    assert "pass-word" not in found["no_database"].what


async def test_database_that_was_never_migrated_has_that_one_problem(
    empty_dsn: str, settings: Settings
) -> None:
    found = await found_by(replace(settings, database_url=empty_dsn))

    assert problems(found) == {"pending_migrations"}
    assert "0001_" in found["pending_migrations"].what


async def test_a_check_that_fails_is_a_finding(
    settings: Settings, admin: Connection, connection: Connection
) -> None:
    await admin.execute("alter table zapwatch_alerts rename to zapwatch_alerts_of_before")

    found = await found_by(settings)

    assert found["unchecked"].severity is Severity.PROBLEM
    assert found["unchecked"].what.startswith("Could not be checked: alerts (UndefinedTableError")
    assert "disk" in found


async def test_nothing_is_changed(settings: Settings, connection: Connection, gateway: Gateway) -> None:
    await register(connection, gateway)
    before = await everything(connection)

    await examine(settings, opened)

    assert await everything(connection) == before


async def everything(connection: Connection) -> dict[str, list[tuple[str, str]]]:
    """Return every row of every table, with the transaction that wrote it."""
    tables = await connection.fetch(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    return {
        name: [
            tuple(row)
            for row in await connection.fetch(f"select xmin::text, t::text from {name} t order by 2")
        ]
        for (name,) in tables
    }


async def test_embedded_database_that_is_not_there_is_not_made() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = await found_by(Settings(data_dir=Path(folder) / "data"))
        left = list(Path(folder).iterdir())

    assert problems(found) == {"no_database"}
    assert left == []


async def test_embedded_database_is_examined_beside_the_service_and_alone_with_the_keys_that_are_kept() -> (
    None
):
    with reachable_folder() as folder:
        data_dir = folder / "data"
        async with run_embedded(data_dir) as embedded, connected(embedded.dsn) as connection:
            await migrate(connection)
            new = ChannelSpec(provider="waha", instance="loja", api_url="http://waha.example", api_key="k")
            await register_channel(connection, VAULT, new)
            beside = await run_zapwatch("doctor", "--json", ZAPWATCH_DATA_DIR=str(data_dir))
        kept = data_dir / "secret_keys"
        made = kept.exists()
        kept.write_text(base64.urlsafe_b64encode(KEY).decode())
        alone = await run_zapwatch("doctor", "--json", ZAPWATCH_DATA_DIR=str(data_dir))

    assert not made
    assert "sealed_key" in {item["code"] for item in json.loads(beside.out)}
    assert not {"sealed_key", "unchecked"} & {item["code"] for item in json.loads(alone.out)}


async def test_channels_from_before_put_by_was_kept_are_listed_by_gateway(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    for instance in ("loja", "loja-2", "loja-3"):
        await register(connection, gateway, instance)
    assert "put_by_unknown" not in await found_by(settings)
    await connection.execute("update zapwatch_channels set put_by = null where instance <> 'loja-3'")

    found = (await found_by(settings))["put_by_unknown"]

    assert found.severity is Severity.NOTE
    assert found.what.startswith("2 channels were registered before")
    assert f"By gateway (1): {gateway.url}: 2." in found.what
    assert "put_by = 'tenant'" in found.do


async def test_no_name_smuggles_a_token_into_a_finding(
    connection: Connection, settings: Settings, gateway: Gateway
) -> None:
    await register(connection, gateway, api_key=None, name="zw_s3cret")

    found = await found_by(settings)

    assert "(zw_…, loja at" in found["unconfigured"].what


async def test_nearly_full_disk_of_the_embedded_database_is_a_problem(tmp_path: Path) -> None:
    embedded = Settings(data_dir=tmp_path)

    found = await check_free_disk(embedded, least=10**18)

    assert [finding.code for finding in found] == ["disk_full"]
    assert (
        await check_free_disk(replace(embedded, database_url="postgresql://elsewhere/x"), least=10**18) == []
    )


def test_findings_are_printed_line_by_line_and_no_name_moves_the_cursor() -> None:
    out = StringIO()
    findings = (problem("a", "[red]x\x1b[2J" + " long" * 100, "do this"), note("b", "y", "do that"))

    Examination("Looked.", findings).print(Console(file=out, markup=False, emoji=False, highlight=False))

    assert out.getvalue().splitlines() == [
        "Looked.",
        "problem  [red]x?[2J" + " long" * 100,
        "         do this",
        "note     y",
        "         do that",
    ]


async def test_command_says_what_is_wrong_without_any_secret_and_exits_with_1(
    dsn: str, connection: Connection, gateway: Gateway
) -> None:
    _, token = await register(connection, gateway, api_key="key-s3cret\n")
    await register(connection, gateway, "loja-2", api_key="key-s3cret")
    gateway.webhooks["loja-2"] = slot(f"http://127.0.0.1:8080/webhooks/evolution_api/{token}x")
    keys = base64.urlsafe_b64encode(KEY).decode()
    environ = {"ZAPWATCH_DATABASE_URL": dsn, "ZAPWATCH_SECRET_KEYS": keys, "ZAPWATCH_PROT": "1"}

    said = await run_zapwatch("doctor", **environ)
    listed = await run_zapwatch("doctor", "--json", **environ)

    findings = json.loads(listed.out)
    password = unquote(urlsplit(dsn).password or "-")
    assert (said.code, said.err, listed.code, listed.err) == (1, "", 1, "")
    assert said.out.splitlines()[0].endswith("gateways 1, channels 2.")
    assert "did you mean ZAPWATCH_PORT" in said.out
    assert [item["severity"] for item in findings] == sorted((f["severity"] for f in findings), reverse=True)
    assert {"odd_key", "refused_webhook", "nobody_told"} <= {item["code"] for item in findings}
    assert all(set(item) == {"severity", "code", "what", "do"} for item in findings)
    for secret in ("key-s3cret", token, keys, password):
        assert secret not in said.out + listed.out


async def test_command_exits_with_0_when_nothing_is_wrong(dsn: str) -> None:
    keys = base64.urlsafe_b64encode(KEY).decode()

    said = await run_zapwatch("doctor", ZAPWATCH_DATABASE_URL=dsn, ZAPWATCH_SECRET_KEYS=keys)

    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-1] == "No problem was found."


@pytest.mark.parametrize(
    ("sample", "addresses"),
    [
        ("evolution_api/webhook_find", ("https://watch.example.com/webhooks/evolution/acme-sales-01",)),
        ("evolution_api/webhook_find_unset", ()),
        ("evolution_api/v1_webhook_find", ("https://watch.example.com/webhooks/evolution/acme-sales-01",)),
        ("evolution_api/connection_state_open", None),
        ("wapi/resp_200_fetch_instance", ("https://monitor.example/hooks/wapi/ch1",) * 2),
        ("wapi/resp_200_status_instance_connected", None),
    ],
)
def test_captured_answers_tell_where_webhooks_go(sample: str, addresses: tuple[str, ...] | None) -> None:
    provider, _, name = sample.partition("/")
    body = (SAMPLES / provider.removesuffix("_api") / f"{name}.json").read_bytes()

    assert PROVIDERS[provider].read_webhooks(200, body) == addresses
    assert PROVIDERS[provider].read_webhooks(500, body) is None
