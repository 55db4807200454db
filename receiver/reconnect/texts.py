"""The sentences of the pages, and the choice of their language; knows no channel and no request.

The English sentences are the keys of the catalogues in `receiver/i18n/locale`. In them only `<b>` is markup.
"""

from collections.abc import Mapping
from typing import Final

from receiver.i18n.reasons import DEFAULT_LOCALE, LOCALES, N_, catalogue, reason_text
from statemachine.model import Reason

NAMES: Final = {"pt-BR": "Português", "en": "English", "es": "Español"}
"""The languages, each in its own."""
FOR_READERS: Final = frozenset({Reason.LOGGED_OUT, Reason.BANNED, Reason.BANNED_TEMPORARILY})
"""Reasons that the phone's owner can act on: in WhatsApp itself, or by waiting.

The others concern gateways and sessions, which operators manage, or a QR or connection that is under way,
which the page shows.
"""


def texts_in(locale: str) -> Mapping[str, str]:
    """Return all sentences in one of `LOCALES`, by their names."""
    words = catalogue(locale)
    return {name: words.gettext(sentence) for name, sentence in _TEXTS.items()}


def reason_in(locale: str, reason: Reason | None) -> str | None:
    """Return why the connection was lost, if the reader can act on it."""
    return reason_text(reason, locale) if reason in FOR_READERS else None


def language_of(wanted: str | None, accepted: str | None, tenants: str | None) -> str:
    """Return the reader's language: as asked for, else the browser's first known, else the tenant's."""
    candidates = [wanted or "", *_by_weight(accepted or ""), tenants or ""]
    return next((known for candidate in candidates if (known := _known(candidate))), DEFAULT_LOCALE)


def _known(tag: str) -> str | None:
    language = tag.partition("-")[0].lower()
    return next((locale for locale in LOCALES if locale.partition("-")[0] == language), None)


def _by_weight(accepted: str) -> list[str]:
    weighed = []
    for part in accepted[:200].split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            weighed.append((-float(weight or 1), tag))
        except ValueError:
            continue
    return [tag for weight, tag in sorted(weighed, key=lambda pair: pair[0]) if weight < 0]


_TEXTS: Final[dict[str, str]] = {
    "title": N_("Reconnect WhatsApp"),
    "of": N_("WhatsApp of"),
    "your": N_("Your WhatsApp"),
    "lost": N_(
        "This WhatsApp has lost its connection. Scan the QR code with this number's phone to send and "
        "receive messages again."
    ),
    "lost_only": N_("This WhatsApp has lost its connection."),
    "step_open": N_("Open <b>WhatsApp</b> on this number's phone."),
    "step_menu": N_("Tap <b>More options</b> or <b>Settings</b>, then <b>Linked devices</b>."),
    "step_scan": N_("Tap <b>Link a device</b> and point the camera at this code."),
    "how": N_("How to scan"),
    "qr": N_("QR code that connects WhatsApp"),
    "ready": N_("Waiting for the scan…"),
    "ready_more": N_("The code renews itself while this page is open."),
    "preparing": N_("Preparing the QR code…"),
    "preparing_more": N_("This takes a few seconds. Keep this page open."),
    "connected": N_("Connected"),
    "connected_more": N_("WhatsApp is connected again. You can close this page."),
    "connecting": N_("Connecting…"),
    "connecting_more": N_("Almost there. Keep the phone on and online."),
    "waiting": N_("The connection dropped, but may come back by itself"),
    "waiting_more": N_("Check that the phone is on and online. If a scan is needed, the code appears here."),
    "down": N_("The code can't be shown right now"),
    "down_more": N_(
        "The service that connects WhatsApp is not answering. We keep trying: the code appears here as "
        "soon as there is one."
    ),
    "refused": N_("This channel shows no QR code"),
    "refused_more": N_("Talk to whoever looks after your WhatsApp: the connection has to be checked there."),
    "typed_only": N_("Connect with a code of letters"),
    "typed_only_more": N_(
        "There is no picture of the QR code here. Below you get a code to type on the phone."
    ),
    "by_number": N_("Is this page open on that same phone?"),
    "by_number_more": N_("Get a code to type into WhatsApp instead of scanning."),
    "number": N_("Phone number with country code"),
    "get_code": N_("Get a code"),
    "code_is": N_("Your code"),
    "code_use": N_(
        "In WhatsApp: Linked devices, Link a device, Link with phone number instead. Type this code."
    ),
    "code_wrong": N_("Check the number: 8 to 15 digits, with the country code."),
    "code_later": N_("There is no code yet. Try again in a few seconds."),
    "code_often": N_("Too many codes were asked for. Wait a few minutes, then try again."),
    "code_none": N_("This WhatsApp needs no code now, or takes none that is typed."),
    "paused": N_("Are you still there?"),
    "paused_more": N_(
        "We stopped renewing the code so as not to strain WhatsApp. Get another when you have the phone "
        "at hand."
    ),
    "show": N_("Show the QR code"),
    "until": N_("This link works until"),
    "private": N_("Give it to nobody who must not have this WhatsApp."),
    "languages": N_("Language"),
    "unknown": N_("This link is not valid"),
    "unknown_more": N_("Open the whole link, as it came in the message."),
    "expired": N_("This link has expired"),
    "expired_more": N_("Ask whoever sent it for a new one, or use the one in the newest message."),
    "over": N_("This interruption is over"),
    "over_more": N_("WhatsApp has connected since. If it drops again, a message brings a new link."),
    "gone": N_("This channel is no more"),
    "gone_more": N_("It was removed: there is nothing to reconnect."),
    "often": N_("Too many tries"),
    "often_more": N_("Wait a minute, then open the link again."),
    "away": N_("One moment"),
    "away_more": N_("The service is coming back. This page tries again by itself."),
}
