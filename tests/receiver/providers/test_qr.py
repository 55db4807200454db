"""What gateways answer when they are asked for a QR: only what can be scanned, shown or typed passes."""

import base64
from typing import Any

import orjson
import pytest

from db.reconcile.qr import Qr
from receiver.providers import SCANNABLE
from receiver.providers.qr import NoQr, png_of, qr_of

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and a picture").decode()
PICTURE = f"data:image/png;base64,{PNG}"
EVOLUTION, WAPI = SCANNABLE["evolution_api"], SCANNABLE["wapi"]


def body(document: Any) -> bytes:
    return orjson.dumps(document)


@pytest.mark.parametrize(
    ("status", "answer", "read"),
    [
        (200, {"pairingCode": None, "code": "2@x", "base64": PICTURE, "count": 1}, Qr("2@x", PICTURE)),
        (200, {"pairingCode": "ABCD1234", "code": "2@x"}, Qr("2@x", None, "ABCD1234")),
        (200, {"count": 0}, NoQr.NOT_YET),
        (200, {"instance": {"instanceName": "a", "state": "open"}}, NoQr.CONNECTED),
        (200, {"instance": {"instanceName": "a", "state": "close"}}, NoQr.NOT_YET),
        (200, {"error": True, "message": "[object Object]"}, NoQr.FAILED),
        (404, {"response": {"message": ['The "a" instance does not exist']}}, NoQr.MISSING),
        (404, {"response": {"message": ["Cannot GET /instance/connect/a"]}}, NoQr.FAILED),
        (401, {"response": {"message": "Unauthorized"}}, NoQr.UNAUTHORIZED),
        (503, {"code": "LICENSE_REQUIRED"}, NoQr.FAILED),
        (200, [], NoQr.FAILED),
        (200, {"code": ["2@x"], "base64": {"a": PICTURE}, "pairingCode": 12345678}, NoQr.NOT_YET),
    ],
)
def test_evolutions_answer_is_read(status: int, answer: Any, read: Qr | NoQr) -> None:
    assert EVOLUTION.read_qr(status, body(answer)) == read


def test_evolution_1_fails_with_an_empty_200() -> None:
    assert EVOLUTION.read_qr(200, b"") is NoQr.FAILED


@pytest.mark.parametrize(
    ("status", "answer", "read"),
    [
        (200, {"error": False, "instanceId": "LITE-1", "qrcode": PICTURE}, Qr(None, PICTURE)),
        (200, {"base64": PNG}, Qr(None, PICTURE)),
        (200, {"pairingCode": "ABCD-1234"}, Qr(None, None, "ABCD-1234")),
        (200, {"code": "ABCD1234"}, Qr(None, None, "ABCD1234")),
        (200, {"connected": True, "phone": "5511999990000"}, NoQr.CONNECTED),
        (200, {"connected": False}, NoQr.NOT_YET),
        (200, {"error": True, "message": "Erro", "code": "ABCD1234"}, NoQr.FAILED),
        (404, {"error": True}, NoQr.MISSING),
        (401, {"error": True}, NoQr.UNAUTHORIZED),
        (500, {"error": True}, NoQr.FAILED),
    ],
)
def test_wapis_answer_is_read(status: int, answer: Any, read: Qr | NoQr) -> None:
    assert WAPI.read_qr(status, body(answer)) == read


def test_wapis_page_for_a_wrong_path_is_no_lost_instance() -> None:
    assert WAPI.read_qr(404, b"<!DOCTYPE html>") is NoQr.FAILED


@pytest.mark.parametrize(
    "image",
    [
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64," + PNG,
        "https://example.com/qr.png",
        PICTURE + '" onerror="x',
        PICTURE + "A" * 100_000,
        "data:image/png;base64,iVBORw0K" + "A" * 9,
        b"\x89PNG",
        5,
    ],
)
def test_what_is_no_png_is_no_picture(image: object) -> None:
    assert qr_of("2@x", image) == Qr("2@x")


@pytest.mark.parametrize("code", ["ABCD12345", "abcd1234", "ABCD 123", "٥" * 8, "<b>ABCD</b>", ""])
def test_what_can_not_be_typed_is_no_pairing_code(code: str) -> None:
    assert qr_of(pairing_code=code) is None


@pytest.mark.parametrize("cut", range(4))
def test_every_picture_that_passes_can_be_sent(cut: int) -> None:
    image = PICTURE.rstrip("=")
    qr = qr_of(image=image[: len(image) - cut])

    assert qr is None or (qr.image is not None and png_of(qr.image).startswith(b"\x89PNG"))


def test_content_that_fits_no_qr_is_dropped_and_odd_characters_are_replaced() -> None:
    assert qr_of("x" * 4097) is None
    assert qr_of("2@\ud83d\0") == Qr("2@??")


def test_nothing_of_a_qr_is_in_its_words() -> None:
    qr = qr_of("2@SECRET", PICTURE, "ABCD1234")

    assert "SECRET" not in repr(qr)
    assert "ABCD" not in repr(qr)
    assert PNG not in repr(qr)


@pytest.mark.parametrize(
    ("provider", "number", "path"),
    [
        (EVOLUTION, None, "/instance/connect/loja%201"),
        (EVOLUTION, "5511999990000", "/instance/connect/loja%201?number=5511999990000"),
        (WAPI, None, "/instance/qr-code?image=disable&instanceId=loja%201"),
        (WAPI, "5511999990000", "/instance/pairing-code?phoneNumber=5511999990000&instanceId=loja%201"),
    ],
)
def test_question_names_the_instance_and_the_number(provider: Any, number: str | None, path: str) -> None:
    assert provider.ask_qr("loja 1", "SECRET", number).path == path
