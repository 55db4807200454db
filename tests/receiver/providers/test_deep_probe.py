"""What Evolution's records and its look-up of a number say of a connection that it calls open."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from receiver.providers import DEEP, PROVIDERS
from receiver.providers.report import DeepProbeResult

SAMPLES = Path(__file__).parents[2] / "samples" / "evolution"
EVOLUTION = DEEP["evolution_api"]
NOT_REGISTERED = b'[{"jid": "447700900617@s.whatsapp.net", "exists": false, "number": "447700900617"}]'


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes()


def records(**fields: object) -> bytes:
    """A list of one instance, with these fields changed."""
    (row,) = orjson.loads(sample("fetch_instances_stale_reason"))
    return orjson.dumps([row | fields])


@pytest.mark.parametrize(
    ("status", "body", "pulse"),
    [
        (200, NOT_REGISTERED, DeepProbeResult.ALIVE),
        (200, sample("whatsapp_numbers_ok"), DeepProbeResult.UNANSWERED),
        (200, b"<html>", DeepProbeResult.UNANSWERED),
        (200, b'{"error": true}', DeepProbeResult.UNANSWERED),
        (400, sample("whatsapp_numbers_closed_400"), DeepProbeResult.DEAD),
        (500, sample("connection_closed_500"), DeepProbeResult.DEAD),
        (400, sample("whatsapp_numbers_timeout_400"), DeepProbeResult.DOUBTFUL),
        (400, b'{"isBoom": true, "output": {"statusCode": 408}}', DeepProbeResult.DOUBTFUL),
        (400, b'{"isBoom": true, "output": {"statusCode": 429}}', DeepProbeResult.UNANSWERED),
        (400, b'{"isBoom": true, "output": "428"}', DeepProbeResult.UNANSWERED),
        (400, b'{"output": {"statusCode": 428}}', DeepProbeResult.UNANSWERED),
        (400, b"Bad Request", DeepProbeResult.UNANSWERED),
        (500, sample("guard_500"), DeepProbeResult.UNANSWERED),
        (500, b"Connection Closed", DeepProbeResult.UNANSWERED),
        (502, sample("connection_closed_500"), DeepProbeResult.UNANSWERED),
        (401, sample("unauthorized_401"), DeepProbeResult.UNANSWERED),
        (404, sample("connection_state_404"), DeepProbeResult.UNANSWERED),
        (503, sample("license_required_503"), DeepProbeResult.UNANSWERED),
    ],
)
def test_only_what_whatsapp_itself_says_proves_life_or_death(
    status: int, body: bytes, pulse: DeepProbeResult
) -> None:
    assert EVOLUTION.read(status, body) is pulse


@pytest.mark.parametrize(
    ("fields", "sign"),
    [
        ({}, None),  # open, with the reason fields of a session before
        ({"connectionStatus": "connecting"}, None),
        ({"connectionStatus": "close"}, "close 401 2025-12-04T09:26:24.608Z"),
        ({"connectionStatus": "close", "disconnectionReasonCode": None, "disconnectionAt": None}, "close"),
    ],
)
def test_only_an_end_on_record_speaks_against_an_open_channel(
    fields: dict[str, object], sign: str | None
) -> None:
    assert EVOLUTION.read_records(200, records(**fields)) == {"acme-sales-01": sign}


def test_integration_without_a_socket_has_no_records() -> None:
    body = records(connectionStatus="close", integration="WHATSAPP-BUSINESS")

    assert EVOLUTION.read_records(200, body) == {}


@pytest.mark.parametrize(
    ("status", "body"), [(401, b"[]"), (200, b"{}"), (200, b"<html>"), (404, sample("fetch_instances_404"))]
)
def test_what_is_no_list_is_no_answer(status: int, body: bytes) -> None:
    assert EVOLUTION.read_records(status, body) is None


def test_sign_holds_no_token_and_no_number() -> None:
    body = records(connectionStatus="close")

    told = str(EVOLUTION.read_records(200, body))

    assert "F00D" not in told
    assert "5511900000001" not in told


def test_one_number_is_looked_up_whatever_the_channel_and_it_is_nobodys() -> None:
    orders = [EVOLUTION.ask(instance, "k") for instance in ("loja-01", "Loja São Paulo/01")]

    bodies: list[Any] = [order.body for order in orders]
    numbers = [number for body in bodies for number in body["numbers"]]
    assert len(set(numbers)) == 1
    assert "447700900000" <= numbers[0] <= "447700900999"
    assert orders[1].path == "/chat/whatsappNumbers/Loja%20S%C3%A3o%20Paulo%2F01"


@pytest.mark.parametrize(
    ("version", "has"), [("1.8.2", False), ("2.0.9", True), ("2.3.7", True), ("?", False)]
)
def test_version_whose_list_is_its_memory_has_no_records(version: str, has: bool) -> None:
    assert EVOLUTION.has_records(version) is has


def test_providers_without_a_deep_probe_say_so() -> None:
    assert {name for name, provider in PROVIDERS.items() if provider.deep is None} == {
        "wapi",
        "twilio",
        "waha",
    }
