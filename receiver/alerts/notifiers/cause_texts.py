"""Titles and details of messages about a gateway's incident, and of those that stand for many channels.

Only sentences: `texts` renders names, times and lists. The English sentences are the keys of the catalogues.
"""

from collections.abc import Iterator
from gettext import NullTranslations
from typing import Final

from receiver.alerts.message import Event, Group, MessageItem
from receiver.i18n.reasons import N_

CAUSES: Final = {
    "unreachable": N_("It doesn't answer."),
    "unavailable": N_("It answers that it is unavailable (503)."),
    "mass_loss": N_("Many of its channels lost their connection at once."),
    "unauthorized": N_(
        "It answers, and refuses the key. Import it with a key that works (zapwatch import, --replace-keys), "
        "or change the key of its channels."
    ),
}
OPENED: Final = {"unauthorized": N_("Gateway {name} refuses the key")}
STILL: Final = {"unauthorized": N_("Gateway {name} still refuses the key")}
RESOLVED: Final = {
    "unauthorized": N_("Gateway {name} takes the key again"),
    "mass_loss": N_("The loss of channels at gateway {name} is over"),
}


def cause_title(words: NullTranslations, item: MessageItem, is_reminder: bool) -> str | None:
    """Return the title of a gateway's incident or of many channels, with `{name}`; None: the usual one."""
    if is_reminder and item.group is not None and (item.group.is_tenants or item.kind == "mass_loss"):
        return _reminder_title(words, item.group)
    if is_reminder and item.event is Event.GATEWAY_OPENED and item.kind in STILL:
        return words.gettext(STILL[item.kind])
    if item.group is not None and item.group.is_tenants:
        return _group_title(words, item, item.group)
    if item.event is Event.INCIDENT_RESOLVED and item.was_never_connected:
        return words.gettext(N_("The fault of {name} is over; it waits for its first scan"))
    if item.event is Event.GATEWAY_OPENED:
        return _opened_title(words, item)
    if item.event is not Event.GATEWAY_RESOLVED:
        return None
    if item.was_removed:
        return words.gettext(N_("Gateway {name} has no watched channel any more"))
    if item.perhaps_offline:
        return words.gettext(N_("Zapwatch reaches gateway {name} again"))
    return words.gettext(RESOLVED[item.kind]) if item.kind in RESOLVED else None


def cause_details(words: NullTranslations, item: MessageItem) -> Iterator[str]:
    """Yield what helps to understand the cause, and how many are concerned."""
    if item.event is Event.GATEWAY_OPENED and item.kind in CAUSES:
        yield words.gettext(CAUSES[item.kind])
    group = item.group
    if group is None:
        return
    if group.is_tenants:
        yield from _group_details(words, item, group)
    elif item.event is Event.GATEWAY_OPENED and group.tenants:
        sentence = words.ngettext("{n} tenant is affected.", "{n} tenants are affected.", group.tenants)
        yield sentence.format(n=group.tenants)
    elif item.event is Event.GATEWAY_RESOLVED and item.kind == "mass_loss":
        yield _returned(words, group)


def _opened_title(words: NullTranslations, item: MessageItem) -> str | None:
    if item.perhaps_offline:
        n = max(1, item.group.gateways if item.group else 1)
        sentence = words.ngettext(
            "Zapwatch may be offline: {n} gateway doesn't answer",
            "Zapwatch may be offline: {n} gateways don't answer",
            n,
        )
        return sentence.format(n=n)
    if item.flaps:
        return words.gettext(N_("Gateway {name} keeps failing and returning"))
    if item.kind == "mass_loss" and item.group is not None:
        lost = max(item.group.down, item.affected or 0)
        sentence = words.ngettext(
            "Gateway {name} lost {n} of its {total} channels",
            "Gateway {name} lost {n} of its {total} channels",
            lost,
        )
        return sentence.format(name="{name}", n=lost, total=item.group.total)
    return words.gettext(OPENED[item.kind]) if item.kind in OPENED else None


def _reminder_title(words: NullTranslations, group: Group) -> str:
    if group.is_tenants:
        sentence = words.ngettext(
            "{n} of your {total} channels is still without connection",
            "{n} of your {total} channels are still without connection",
            group.down,
        )
    else:
        sentence = words.ngettext(
            "{n} of the {total} channels of gateway {name} is still without connection",
            "{n} of the {total} channels of gateway {name} are still without connection",
            group.down,
        )
    return sentence.format(name="{name}", n=group.down, total=group.total)


def _group_title(words: NullTranslations, item: MessageItem, group: Group) -> str:
    if item.event is not Event.INCIDENT_RESOLVED:
        return _lost_title(words, item, group)
    if group.down:
        return _returned(words, group).rstrip(".")
    sentence = words.ngettext(
        "{n} of your {total} channels is connected again",
        "{n} of your {total} channels are connected again",
        group.back,
    )
    return sentence.format(n=group.back, total=group.total)


def _lost_title(words: NullTranslations, item: MessageItem, group: Group) -> str:
    if item.kind == "mass_loss":
        sentence = words.ngettext(
            "{n} of your {total} channels lost its connection",
            "{n} of your {total} channels lost their connection",
            group.down,
        )
    else:
        sentence = words.ngettext(
            "{n} of your {total} channels can't be reached",
            "{n} of your {total} channels can't be reached",
            group.down,
        )
    return sentence.format(n=group.down, total=group.total)


def _group_details(words: NullTranslations, item: MessageItem, group: Group) -> Iterator[str]:
    if item.event is Event.INCIDENT_RESOLVED:
        return
    if item.perhaps_offline:
        yield words.gettext(N_("Zapwatch can't reach them, and may be offline itself. No scan is needed."))
    else:
        yield words.gettext(N_("The fault is at the gateway; no scan is needed."))


def _returned(words: NullTranslations, group: Group) -> str:
    """Return how many are back and how many aren't, in one sentence."""
    back = words.ngettext("{n} channel is back", "{n} channels are back", group.back).format(n=group.back)
    if not group.down:
        return f"{back}."
    if group.need_scan == group.down:
        rest = words.ngettext("{n} needs a scan", "{n} need a scan", group.down)
    else:
        rest = words.ngettext("{n} is not back", "{n} are not back", group.down)
    return f"{back}, {rest.format(n=group.down)}."
