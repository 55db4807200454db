"""Texts: every reason is explained in every language, and no sentence is left untranslated."""

import re
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from receiver.i18n.reasons import CATALOGUES, DOMAIN, LOCALES, reason_text
from receiver.reconnect.rendering import emphasised
from statemachine.model import Reason

SOURCES = sorted(CATALOGUES.parents[1].rglob("*.py"))


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


@pytest.mark.parametrize("locale", LOCALES)
def test_catalogue_has_exactly_the_sentences_of_the_code_and_all_are_translated(locale: str) -> None:
    said = {
        found[1]
        for path in SOURCES
        for found in extract_from_file("python", path, {**DEFAULT_KEYWORDS, "N_": None})
    }

    messages = [message for message in _catalogue(locale) if message.id]

    assert {message.id for message in messages} == said
    for message in messages:
        words = message.string if isinstance(message.string, tuple | list) else (message.string,)
        assert all(words), message.id
        assert not message.fuzzy, message.id
        for word in words:
            said_first = str(message.id[-1] if message.pluralizable else message.id)
            assert _fields(word) == _fields(said_first)
            assert _markup(word) == _markup(said_first)


def test_a_sentence_stresses_words_and_is_text_in_all_else() -> None:
    shown = emphasised("<b>Tap</b> 'here' & <script>x</script><b onclick=x>y</b>")

    assert shown == ("<b>Tap</b> &#39;here&#39; &amp; &lt;script&gt;x&lt;/script&gt;&lt;b onclick=x&gt;y</b>")


@pytest.mark.parametrize("locale", LOCALES)
def test_compiled_catalogue_is_that_of_the_sentences(locale: str) -> None:
    compiled = BytesIO()

    write_mo(compiled, _catalogue(locale))

    assert _path(locale, "mo").read_bytes() == compiled.getvalue(), "run make texts"


def _catalogue(locale: str) -> Catalog:
    with _path(locale, "po").open("rb") as file:
        return read_po(file)


def _path(locale: str, kind: str) -> Path:
    return CATALOGUES / locale.replace("-", "_") / "LC_MESSAGES" / f"{DOMAIN}.{kind}"


def _fields(text: str | None) -> set[str]:
    return set(re.findall(r"{\w+}", text or ""))


def _markup(text: str | None) -> list[str]:
    return re.findall(r"<[^>]*>?|&\w+;", text or "")
