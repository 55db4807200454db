"""What a reason means and what helps, in a sentence for people, and the catalogues of all such sentences.

Knows no channel and no tenant. A sentence's English is its key in the catalogues of `receiver/i18n/locale`;
`make texts` updates those.
"""

from functools import cache
from gettext import NullTranslations, translation
from pathlib import Path
from typing import Final

from statemachine.model import Reason

DEFAULT_LOCALE: Final = "pt-BR"
LOCALES: Final = ("pt-BR", "en", "es")
CATALOGUES: Final = Path(__file__).parent / "locale"
DOMAIN: Final = "zapwatch"


def N_(sentence: str) -> str:
    """Return a sentence as it is: marks it for the catalogues where it is only kept."""
    return sentence


def language(locale: str | None) -> str:
    """Return the one of `LOCALES` that a locale gets: that of its language, or else Portuguese."""
    asked = (locale or "").replace("_", "-").partition("-")[0].lower()
    return next((known for known in LOCALES if known.partition("-")[0] == asked), DEFAULT_LOCALE)


def catalogue(locale: str | None) -> NullTranslations:
    """Return the sentences in the language of a locale."""
    return _catalogue(language(locale))


@cache
def _catalogue(known: str) -> NullTranslations:
    return translation(DOMAIN, CATALOGUES, [known.replace("-", "_")])


def reason_text(reason: Reason, locale: str | None) -> str:
    """Return the sentence in the locale, its language, or else in Portuguese."""
    return catalogue(locale).gettext(_TEXTS[reason])


_TEXTS: Final[dict[Reason, str]] = {
    Reason.LOGGED_OUT: N_(
        "The device was logged out in WhatsApp on the phone. Scan a new QR code to connect it again."
    ),
    Reason.LOGGED_OUT_BY_API: N_(
        "The session was logged out by a command at the gateway. Scan a new QR code to connect it again."
    ),
    Reason.BANNED: N_(
        "WhatsApp has banned this number. Ask for a review in the app on the phone or use another number."
    ),
    Reason.BANNED_TEMPORARILY: N_(
        "WhatsApp has banned this number for a while. Wait until the ban ends, then scan a new QR code."
    ),
    Reason.QR_LIMIT: N_(
        "The QR code was not scanned in time and is no longer shown. Ask for a new one and scan it."
    ),
    Reason.SCAN_NEEDED: N_(
        "The channel has lost its session and waits for a scan. Scan the QR code with WhatsApp on the phone."
    ),
    Reason.INSTANCE_REMOVED: N_(
        "The instance was removed from the gateway. Make it again and scan its QR, or delete the channel."
    ),
    Reason.SESSION_MISSING: N_(
        "The gateway no longer has this channel's session. Check the instance's name and scan a new QR code."
    ),
    Reason.EXPIRED: N_(
        "The gateway's subscription for this channel has ended. Renew it; then scan a QR code if need be."
    ),
    Reason.CONNECTION_LOST: N_(
        "The connection to WhatsApp was lost. It often returns by itself; if not, check the gateway's line."
    ),
    Reason.CONNECTION_CLOSED: N_(
        "WhatsApp closed the connection. It usually returns by itself; if not, restart the instance."
    ),
    Reason.CONNECTION_REPLACED: N_(
        "Another connection uses the same session. Keep the session on one gateway only and stop the other."
    ),
    Reason.RESTART_REQUIRED: N_(
        "WhatsApp asked for the connection to be restarted. The gateway does so by itself within moments."
    ),
    Reason.BAD_SESSION: N_(
        "The session at the gateway is damaged. Restart the instance; if that doesn't help, scan a QR code."
    ),
    Reason.DISCONNECTED: N_(
        "The gateway reported a disconnection without a reason. Restart the instance or scan its QR code."
    ),
    Reason.INCOMPLETE_SESSION: N_(
        "The session is incomplete. Restart the instance; if that isn't enough, scan a new QR code."
    ),
    Reason.CONNECTING: N_(
        "The gateway is connecting to WhatsApp. Wait; if it doesn't finish, check the gateway's network."
    ),
    Reason.QR_SHOWN: N_("The gateway shows a QR code. Scan it with WhatsApp on the phone to connect."),
    Reason.UNREACHABLE: N_(
        "The gateway doesn't answer. Check that it is running and that its address is right."
    ),
    Reason.UNAUTHORIZED: N_("The gateway refused the key. Correct this channel's key."),
    Reason.NOT_LOADED: N_("The gateway knows the instance but has not loaded it. Restart the instance."),
    Reason.PROVIDER_UNAVAILABLE: N_(
        "WhatsApp or the provider is unavailable. It usually returns by itself; wait."
    ),
    Reason.GATEWAY_UNREACHABLE: N_(
        "The gateway doesn't answer for any of its channels. The fault is there; no scan is needed."
    ),
    Reason.GATEWAY_UNAVAILABLE: N_(
        "The gateway answers that it is unavailable. The fault is there; no scan is needed."
    ),
    Reason.OPEN_BUT_DEAD: N_(
        "The gateway says that it is connected, but the connection is dead. Restart the gateway's "
        "process: restarting the instance alone does nothing. If it shows a QR code afterwards, scan it."
    ),
    Reason.FLAPPING: N_(
        "The channel keeps dropping and returning. Check the gateway's network and whether the "
        "session is in use elsewhere."
    ),
    Reason.UNKNOWN: N_(
        "The gateway gave a reason that we don't know. See the channel's events; a restart often helps."
    ),
}
