"""What gateways' answers about all their instances say, read from captured ones and from odd ones."""

from pathlib import Path

import pytest

from receiver.providers import MANAGED
from statemachine.model import Trigger

SAMPLES = Path(__file__).parents[2] / "samples"
EVOLUTION, WAPI = MANAGED["evolution_api"], MANAGED["wapi"]
HEAD = b"evolution_instances_total 1\n"


def words(status: int, body: bytes, provider: str = "evolution_api") -> dict[str, Trigger] | None:
    """Return what an answer says of each instance."""
    sweep = MANAGED[provider].read_all(status, body)
    return None if sweep is None else {name: answer.trigger for name, answer in sweep.answers.items()}


def line(labels: str) -> bytes:
    """Return metrics with one instance's state."""
    return HEAD + b"evolution_instance_state{%s} 1\n" % labels.encode()


def test_metrics_say_of_each_instance_what_a_probe_would() -> None:
    body = (SAMPLES / "evolution/metrics.txt").read_bytes()

    sweep = EVOLUTION.read_all(200, body)

    assert sweep is not None
    assert sweep.answers == {
        "acme-sales-01": EVOLUTION.read(200, b'{"instance": {"state": "open"}}'),
        "acme-support-02": EVOLUTION.read(200, b'{"instance": {"state": "close"}}'),
    }


@pytest.mark.parametrize(
    ("word", "trigger"),
    [("open", Trigger.OPENED), ("connecting", Trigger.CONNECTING), ("close", Trigger.DROPPED),
     ("refused", Trigger.DROPPED), ("unknown", None), ("", None), ("OPEN", None)],
)  # fmt: skip
def test_only_words_that_say_something_of_the_session_count(word: str, trigger: Trigger | None) -> None:
    found = words(200, line(f'instance="loja",integration="WHATSAPP-BAILEYS",state="{word}"'))

    assert found == ({} if trigger is None else {"loja": trigger})


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (r"Loja São Paulo/01", "Loja São Paulo/01"),
        (r"a \"b\" c", 'a "b" c'),
        (r"back\\slash", r"back\slash"),
        (r"two\nlines", "two\nlines"),
        (r"not\\na line", r"not\na line"),
        (r"},state=\"open\"} 1", '},state="open"} 1'),
    ],
)
def test_a_name_is_read_as_it_was_before_it_was_escaped(label: str, name: str) -> None:
    body = line(f'instance="{label}",integration="WHATSAPP-BAILEYS",state="close"')

    assert words(200, body) == {name: Trigger.DROPPED}


def test_labels_may_come_in_another_order_and_with_others() -> None:
    assert words(200, line('state="open",zone="x",instance="loja"')) == {"loja": Trigger.OPENED}


def test_what_is_cut_off_says_nothing_and_takes_nothing_from_what_came_before() -> None:
    whole = line('instance="one",state="open"') + b'evolution_instance_state{instance="two",state="op'

    assert words(200, whole) == {"one": Trigger.OPENED}


def test_a_line_without_end_is_passed_over() -> None:
    endless = b'evolution_instance_state{instance="' + b"a" * 100_000 + b'",state="open"} 1\n'

    assert words(200, endless + line('instance="one",state="open"')) == {"one": Trigger.OPENED}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"status":404,"error":"Not Found","response":{"message":["Cannot GET /metrics"]}}'),
        (403, b"Forbidden: IP not allowed"),
        (401, b"Authentication required"),
        (200, b"<html><body>It works!</body></html>"),
        (200, b"# HELP up\nup 1\nprocess_cpu_seconds_total 3\n"),
        (200, b""),
        (302, HEAD),
    ],
)
def test_what_is_no_metrics_of_evolutions_is_a_refusal(status: int, body: bytes) -> None:
    assert words(status, body) is None


def test_metrics_are_asked_for_without_anybodys_key() -> None:
    assert EVOLUTION.ask_all("a key", 1) == EVOLUTION.ask_all(None, 1)
    assert "a key" not in str(dict(getattr(EVOLUTION.ask_all("a key", 1), "headers", {})))


def test_a_list_shows_connected_or_not_and_how_many_pages_there_are() -> None:
    body = (SAMPLES / "wapi/resp_200_integrator_instances.json").read_bytes()

    assert words(200, body, "wapi") == {"LITE-ABC123-XYZ789": Trigger.OPENED}
    shown = words(200, body.replace(b'"connected": true', b'"connected": false'), "wapi")
    assert shown == {"LITE-ABC123-XYZ789": Trigger.DROPPED}
    sweep = WAPI.read_all(200, body.replace(b'"totalPage": 1', b'"totalPage": 7'))
    assert sweep is not None
    assert sweep.pages == 7


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"instances": {}}', b'{"error": true}'])
def test_what_is_no_list_is_a_refusal(body: bytes) -> None:
    assert words(200, body, "wapi") is None


@pytest.mark.parametrize("row", ["7", "{}", '{"instanceId": "a"}', '{"instanceId": "a", "connected": 1}'])
def test_a_row_that_says_nothing_is_passed_over(row: str) -> None:
    assert words(200, f'{{"instances": [{row}]}}'.encode(), "wapi") == {}


def test_a_list_is_asked_for_with_the_gateways_own_key_only() -> None:
    assert WAPI.ask_all(None, 1) is None
