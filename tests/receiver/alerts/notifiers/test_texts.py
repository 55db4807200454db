"""What people read: their language, their clock, and enough to act on."""

from datetime import timedelta
from typing import Any

import pytest

from receiver.alerts.message import Event
from receiver.alerts.notifiers.texts import ITEMS_SHOWN, NAME_SHOWN, text_of
from receiver.i18n.reasons import LOCALES
from statemachine.gateway import Cause
from statemachine.model import Reason, State
from tests.receiver.alerts.sink import AT, LINK, item, message, resolved

LATER = AT + timedelta(minutes=100)


def test_channel_that_needs_a_scan_is_told_in_the_products_own_sentence() -> None:
    text = text_of(message(item(name="Loja 1")))

    assert text.subject == "WhatsApp da unidade Loja 1 perdeu conexão"
    assert text.body.splitlines() == [
        "WhatsApp da unidade Loja 1 perdeu conexão. Reconecte via QR Code em Configurações.",
        "O aparelho foi desconectado no WhatsApp do celular. Leia um novo QR code para conectar de novo.",
        "Desde 1 de mar. de 2026, 12:04 (GMT-03:00).",
        f"Reconectar: {LINK}",
    ]


def test_channel_that_a_scan_does_not_help_is_not_sent_to_one() -> None:
    text = text_of(message(item(reason=Reason.UNREACHABLE, kind="error", link=None)))

    assert "QR" not in text.body
    assert text.body.startswith("WhatsApp da unidade Loja 1 perdeu conexão.\nO gateway não responde.")


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        (
            "pt-BR",
            "Durou 2 horas e 5 minutos, de 1 de mar. de 2026, 12:04 (GMT-03:00) a 1 de mar. de 2026, 14:09",
        ),
        (
            "en",
            "It lasted 2 hours and 5 minutes, from Mar 1, 2026, 12:04\u202fPM (GMT-03:00) to Mar 1",
        ),
        ("es", "Duró 2 horas y 5 minutos, de 1 mar 2026, 12:04 (GMT-03:00) a 1 mar 2026, 14:09"),
    ],
)
def test_end_is_told_with_the_duration_in_words(locale: str, words: str) -> None:
    text = text_of(message(resolved(timedelta(hours=2, minutes=5, seconds=7)), locale=locale))

    assert words in text.body
    assert LINK not in text.body


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(seconds=0), "0 segundo"),
        (timedelta(seconds=59, milliseconds=900), "59 segundos"),
        (timedelta(minutes=1), "1 minuto"),
        (timedelta(hours=1, seconds=5), "1 hora"),
        (timedelta(days=8, hours=3, minutes=1), "8 dias e 3 horas"),
        (timedelta(days=400), "400 dias"),
        (timedelta(seconds=-3), "0 segundo"),
    ],
)
def test_duration_has_its_two_greatest_units(length: timedelta, words: str) -> None:
    assert f"Durou {words}, de " in text_of(message(resolved(length))).body.replace("0 segundos", "0 segundo")


@pytest.mark.parametrize(
    ("locale", "subject"),
    [
        ("pt-BR", "5 aparelhos foram desvinculados e 1 canal voltou a se conectar"),
        ("en", "5 devices were unlinked and 1 channel is connected again"),
        ("es", "5 dispositivos fueron desvinculados y 1 canal volvió a conectarse"),
    ],
)
def test_several_are_counted_in_the_subject_and_named_in_the_body(locale: str, subject: str) -> None:
    names = [f"Loja {n}" for n in range(5)]

    text = text_of(message(*(item(name=name) for name in names), resolved(name="Praça"), locale=locale))

    assert text.subject == subject
    assert all(name in text.body for name in [*names, "Praça"])
    assert text.body.count(LINK) == 5


def test_five_losses_are_five_channels() -> None:
    assert text_of(message(*[item()] * 5)).subject == "5 aparelhos foram desvinculados"


def test_of_very_many_the_rest_is_counted() -> None:
    text = text_of(message(*[item(name="Loja")] * (ITEMS_SHOWN + 81)))

    assert len(text.items) == ITEMS_SHOWN
    assert text.subject == "101 aparelhos foram desvinculados"
    assert text.body.endswith("\n\nE mais 81.")


@pytest.mark.parametrize(
    ("locale", "subject", "words"),
    [
        ("pt-BR", "WhatsApp da unidade Loja 1 continua sem conexão", "há 1 hora e 40 minutos."),
        ("en", "WhatsApp of Loja 1 is still without connection", "1 hour and 40 minutes ago."),
        ("es", "WhatsApp de la unidad Loja 1 sigue sin conexión", "hace 1 hora y 40 minutos."),
    ],
)
def test_reminder_says_for_how_long(locale: str, subject: str, words: str) -> None:
    text = text_of(message(at=LATER, is_reminder=True, locale=locale))

    assert text.subject == subject
    assert words in text.body
    assert LINK in text.body


def test_gateways_incident_says_why_and_how_many_channels_it_takes_along() -> None:
    gateway: dict[str, Any] = {
        "channel_id": None,
        "tenant_id": None,
        "reason": None,
        "link": None,
        "name": "gw-1",
    }

    opened = text_of(message(item(event=Event.GATEWAY_OPENED, kind="mass_loss", affected=12, **gateway)))
    closed = text_of(message(resolved(event=Event.GATEWAY_RESOLVED, kind="mass_loss", **gateway)))

    assert opened.subject == "O gateway gw-1 está fora do ar"
    assert (
        "Muitos de seus canais perderam a conexão ao mesmo tempo.\n12 canais foram afetados." in opened.body
    )
    assert closed.subject == "A perda de canais no gateway gw-1 terminou"
    assert "Durou 2 horas" in closed.body


def test_times_are_those_of_the_readers_place() -> None:
    def text(zone: str) -> str:
        return text_of(message(time_zone=zone)).body

    assert "12:04 (GMT-03:00)" in text("America/Sao_Paulo")
    assert "11:04 (GMT-04:00)" in text("America/Manaus")
    assert "15:04 (GMT+00:00)" in text("UTC")
    assert "15:04 (GMT+00:00)" in text("../etc/passwd")
    assert "15:04 (GMT+00:00)" in text("Nowhere/Else")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb\r\nBcc: x\u2028c", "a b Bcc: x c"),
        ("a\0b\x1b[0m\u202ec", "a b [0m c"),
        ("a" * 500, "a" * (NAME_SHOWN - 1) + "…"),
        ("{name} {0}", "{name} {0}"),
        ("%s", "%s"),
    ],
)
def test_a_name_is_one_short_line_whatever_it_is(name: str, shown: str) -> None:
    text = text_of(message(item(name=name)))

    assert text.subject == f"WhatsApp da unidade {shown} perdeu conexão"
    assert text.body.splitlines()[0].startswith(f"{text.subject}. ")


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        (
            "pt-BR",
            "A assinatura da unidade Loja 1 no gateway vence em 3 dias.\n"
            "Está paga até 4 de mar. de 2026, 11:04",
        ),
        ("en", "The gateway's subscription for Loja 1 ends in 3 days.\nIt is paid until Mar 4, 2026, 11:04"),
        (
            "es",
            "La suscripción de la unidad Loja 1 en el gateway vence en 3 días.\n"
            "Está pagada hasta 4 mar 2026, 11:04",
        ),
    ],
)
def test_end_of_a_subscription_is_told_with_its_day_and_the_days_left(locale: str, words: str) -> None:
    ends = item(
        event=Event.EXPIRING, kind="", reason=None, link=None, expires_at=AT + timedelta(days=2, hours=23)
    )

    assert text_of(message(ends, locale=locale)).body.startswith(words)


def everything(locale: str) -> list[str]:
    events: list[Any] = [item(event=event, affected=2, resolved_at=None) for event in Event]
    kinds = [item(event=Event.GATEWAY_OPENED, kind=cause) for cause in Cause]
    states = [item(event=Event.STATE_CHANGED, state=state.shown) for state in State]
    ends = [item(event=Event.EXPIRING, expires_at=AT + n * timedelta(days=1)) for n in (1, 3)]
    single = [
        message(one, locale=locale, is_reminder=reminds, is_test=tests)
        for one in [*events, *kinds, *states, *ends, resolved()]
        for reminds, tests in ((False, False), (True, False), (False, True))
    ]
    several = [
        message(*[item(event=event)] * n, locale=locale, is_reminder=reminds)
        for event in Event
        for n in (2, 30)
        for reminds in (False, True)
    ]
    return [f"{text.subject}\n{text.body}" for text in map(text_of, single + several)]


def test_whatever_happens_there_are_other_words_in_each_language() -> None:
    told = [everything(locale) for locale in LOCALES]

    assert all(len({*texts}) == 3 for texts in zip(*told, strict=True))
    assert not any("{" in text for texts in told for text in texts)
