"""Every row of samples/expected.csv: a payload, where it meets a channel, and where that must lead."""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from receiver.providers import PROVIDERS
from statemachine.model import Channel, Evidence, Reason, Rules, State, Status
from statemachine.signals import Alive, Answered, Heard, Signal
from statemachine.step import step

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = {"evolution": "evolution_api"}
NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
REASONS = {
    State.CONNECTING: Reason.CONNECTING,
    State.QR_PENDING: Reason.QR_SHOWN,
    State.DROPPED: Reason.DISCONNECTED,
    State.UNPAIRED: Reason.LOGGED_OUT,
}


def rows() -> list[dict[str, str]]:
    """The file, a dictionary a row."""
    with (SAMPLES / "expected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def case(row: dict[str, str]) -> str:
    """A test's name."""
    return f"{row['file']}-from-{row['from']}-{row['times_in_a_row']}-{row['note']}"


def channel_in(state: State) -> Channel:
    """A channel that stands somewhere; one that shows its first QR has never been open."""
    status = Status(state, REASONS.get(state))
    return Channel(
        rules=Rules(),
        evidence=Evidence(status),
        status=status,
        since=NOW - timedelta(hours=1),
        first_unhealthy_at=None if state is State.OPEN else NOW - timedelta(hours=1),
        has_been_open=state not in (State.UNKNOWN, State.QR_PENDING),
    )


def heard(row: dict[str, str], body: bytes) -> Signal | None:
    """The signal that a webhook becomes; None when it says nothing."""
    version = "2.4.0-rc2" if row["note"] == "gateway 2.4.0 or newer" else None
    provider = PROVIDERS[NAMES.get(row["provider"], row["provider"])]
    document = orjson.loads(body)
    if row["file"] == "messages_upsert.json":
        document["data"]["messageTimestamp"] = int(NOW.timestamp()) - 59
    report = provider.parse(orjson.dumps(document), version, NOW)
    if report.alive:
        return Alive(NOW)
    if report.said is None:
        return None
    told = report.said
    return Heard(NOW, NOW, NOW, told.trigger, told.reason, told.status, needs_probe=told.needs_probe)


def answered(row: dict[str, str], body: bytes, channel: Channel, number: int) -> Signal:
    """The signal that a probe's answer becomes, each a while after the one before."""
    status = int(row["kind"].removeprefix("probe").strip() or 200)
    answer = PROVIDERS[NAMES.get(row["provider"], row["provider"])].read(status, body)
    began_at = NOW + number * channel.rules.retry_after
    return Answered(
        received_at=began_at + timedelta(seconds=1),
        began_at=began_at,
        version=channel.version,
        trigger=answer.trigger,
        reason=answer.reason,
        status=answer.status,
        certain=answer.certain,
        session_lost=answer.session_lost,
    )


@pytest.mark.parametrize("row", rows(), ids=case)
def test_payload_leads_where_the_table_says(row: dict[str, str]) -> None:
    body = (SAMPLES / row["provider"] / row["file"]).read_bytes()
    channel = channel_in(State(row["from"]))

    for number in range(int(row["times_in_a_row"])):
        is_probe = row["kind"].startswith("probe")
        signal = answered(row, body, channel, number) if is_probe else heard(row, body)
        if signal is not None:
            channel, _ = step(channel, signal)

    assert channel.state == State(row["state"])
    assert (channel.status.reason or "") == row["reason"]
    assert channel.status.terminal == (row["terminal"] == "yes")


@pytest.mark.parametrize("row", [r for r in rows() if r["note"].strip('"').startswith("nothing")], ids=case)
def test_what_says_nothing_becomes_no_signal(row: dict[str, str]) -> None:
    assert heard(row, (SAMPLES / row["provider"] / row["file"]).read_bytes()) is None


@pytest.mark.parametrize("row", [r for r in rows() if r["note"].startswith("alive")], ids=case)
def test_live_traffic_is_alive(row: dict[str, str]) -> None:
    assert isinstance(heard(row, (SAMPLES / row["provider"] / row["file"]).read_bytes()), Alive)


@pytest.mark.parametrize("row", [r for r in rows() if "probe is due" in r["note"]], ids=case)
def test_doubtful_payload_makes_a_probe_due_at_once(row: dict[str, str]) -> None:
    channel = channel_in(State(row["from"]))._replace(probe_due_at=NOW + timedelta(hours=1))

    signal = heard(row, (SAMPLES / row["provider"] / row["file"]).read_bytes())
    assert signal is not None
    channel, _ = step(channel, signal)

    assert channel.probe_due_at is not None
    assert channel.probe_due_at <= NOW
