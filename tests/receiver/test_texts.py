"""Texts: every reason is explained in every language."""

import pytest

from receiver.texts import LOCALES, reason_text
from statemachine.model import Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_sentence_of_its_own_in_every_language(reason: Reason) -> None:
    texts = {reason_text(reason, locale) for locale in LOCALES}

    others = {reason_text(other, locale) for other in Reason if other is not reason for locale in LOCALES}
    assert len(texts) == 3
    assert all(text.endswith(".") and text[0].isupper() for text in texts)
    assert not texts & others


@pytest.mark.parametrize(
    ("locale", "like"),
    [("en-US", "en"), ("ES", "es"), ("pt", "pt-BR"), ("de", "pt-BR"), (None, "pt-BR"), ("", "pt-BR")],
)
def test_unknown_locale_falls_back_to_its_language_and_then_to_portuguese(
    locale: str | None, like: str
) -> None:
    assert reason_text(Reason.EXPIRED, locale) == reason_text(Reason.EXPIRED, like)
