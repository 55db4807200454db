"""Renders messages in the reader's language, time zone and numbers; knows no destination and no markup.

The English sentences are the keys of the catalogues in `receiver/i18n/locale`; `make texts` updates those.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from gettext import NullTranslations
from math import ceil
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel.dates import format_date, format_time, format_timedelta, get_timezone_gmt
from babel.lists import format_list

from receiver.alerts.message import Event, GroupedChannel, Message, MessageItem
from receiver.alerts.notifiers.cause_texts import cause_details, cause_title
from receiver.i18n.reasons import N_, catalogue, language, reason_text
from statemachine.model import Reason, State

ITEMS_SHOWN: Final = 20
"""Alerts that one message has in words; the others are counted."""
NAME_SHOWN: Final = 120
"""Characters of a name."""
TITLES: Final = {
    Event.INCIDENT_OPENED: N_("WhatsApp of {name} lost its connection"),
    Event.INCIDENT_CHANGED: N_("The incident of {name} has changed"),
    Event.INCIDENT_RESOLVED: N_("WhatsApp of {name} is connected again"),
    Event.STATE_CHANGED: N_("WhatsApp of {name} is now: {state}"),
    Event.GATEWAY_OPENED: N_("Gateway {name} is down"),
    Event.GATEWAY_RESOLVED: N_("Gateway {name} is back"),
    Event.DESTINATION_DISABLED: N_("Nothing is sent to {name} any more: it could not be reached"),
}
REMINDERS: Final = {
    Event.INCIDENT_OPENED: N_("WhatsApp of {name} is still without connection"),
    Event.GATEWAY_OPENED: N_("Gateway {name} is still down"),
}
STATES: Final = {
    State.OPEN.shown: N_("connected"),
    State.CONNECTING.shown: N_("connecting"),
    State.QR_PENDING.shown: N_("waiting for a scan"),
    State.DROPPED.shown: N_("disconnected"),
    State.ERROR.shown: N_("in trouble"),
    State.UNKNOWN.shown: N_("unknown"),
}
UNITS: Final[tuple[tuple[Literal["day", "hour", "minute", "second"], int], ...]] = (
    ("day", 86400),
    ("hour", 3600),
    ("minute", 60),
    ("second", 1),
)
EXACT: Final = 10**9
"""Keeps babel from turning 8 days into a week."""


class RenderedItem(NamedTuple):
    """One alert, in words."""

    head: str
    details: tuple[str, ...] = ()
    link: str | None = None


class RenderedMessage(NamedTuple):
    """A message in words."""

    subject: str
    items: tuple[RenderedItem, ...]
    more: str | None
    """A sentence with the number of alerts not in `items`; None: there are none."""
    link_label: str

    @property
    def body(self) -> str:
        """Return all but the subject as plain text."""
        parts = ["\n".join(_lines(item, self.link_label)) for item in self.items]
        return "\n\n".join([*parts, self.more] if self.more else parts)


def text_of(message: Message, shown: int = ITEMS_SHOWN) -> RenderedMessage:
    """Return a message in its reader's language and time zone, with `shown` alerts in words."""
    renderer = MessageRenderer(message)
    items = renderer.test() if message.is_test else tuple(renderer.items(shown))
    more = 0 if message.is_test else max(0, len(message.items) - shown)
    return RenderedMessage(renderer.subject(), items, renderer.more(more), renderer.say(N_("Reconnect")))


def _lines(item: RenderedItem, label: str) -> Iterator[str]:
    yield from (item.head, *item.details)
    if item.link:
        yield f"{label}: {item.link}"


class MessageRenderer:
    """Renders one message in one language."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._locale = language(message.locale).replace("-", "_")
        self._words: NullTranslations = catalogue(message.locale)
        self._zone = _zone(message.time_zone)

    def say(self, sentence: str) -> str:
        return self._words.gettext(sentence)

    def test(self) -> tuple[RenderedItem, ...]:
        return (RenderedItem(self.say(N_("This destination works. Nothing has happened."))),)

    def subject(self) -> str:
        items = self._message.items
        if self._message.is_test or not items:
            return self.say(N_("Test message from Zapwatch"))
        return self._title(items[0]) if len(items) == 1 else self._counted(items)

    def items(self, shown: int) -> Iterator[RenderedItem]:
        """Yield the alerts in words, and after one that stands for many channels those that it names."""
        for item in self._message.items[:shown]:
            yield self.item(item)
            if item.group is not None:
                yield from map(self._channel, item.group.channels[:shown])

    def _channel(self, channel: GroupedChannel) -> RenderedItem:
        reason = () if channel.reason is None else (reason_text(channel.reason, self._message.locale),)
        return RenderedItem(_name(channel.name), reason if channel.link else (), channel.link)

    def item(self, item: MessageItem) -> RenderedItem:
        head = self._title(item) + "."
        if item.needs_scan:
            head += " " + self.say(N_("Reconnect by QR code in Settings."))
        return RenderedItem(head, tuple(self._details(item)), item.link)

    def more(self, count: int) -> str | None:
        words = self._words.ngettext("And {n} more.", "And {n} more.", count)
        return words.format(n=count) if count else None

    def _title(self, item: MessageItem) -> str:
        if item.event is Event.EXPIRING:
            return self._expiring(item)
        title = cause_title(self._words, item, self._message.is_reminder)
        if title is not None:
            return title.replace("{name}", _name(item.name))
        if item.flaps and item.event is Event.INCIDENT_OPENED:
            return self._flapping(item)
        is_again = self._message.is_reminder or item.still_down
        titles = {**TITLES, **REMINDERS} if is_again else TITLES
        state = self.say(STATES.get(item.state or "", STATES[State.UNKNOWN.shown]))
        return self.say(titles[item.event]).format(name=_name(item.name), state=state)

    def _flapping(self, item: MessageItem) -> str:
        minutes = 0 if item.flapped_for is None else int(item.flapped_for / timedelta(minutes=1))
        if minutes:
            dropped = self.say(N_("WhatsApp of {name} dropped {n} times within {minutes} minutes"))
        else:
            dropped = self.say(N_("WhatsApp of {name} keeps dropping and returning"))
        words = dropped.format(name=_name(item.name), n=item.flaps, minutes=minutes)
        return self.say(N_("{dropped}; it is connected now")).format(dropped=words) if item.is_open else words

    def _expiring(self, item: MessageItem) -> str:
        left = (item.expires_at or self._message.at) - self._message.at
        days = max(0, ceil(left / timedelta(days=1)))
        words = self._words.ngettext(
            "The gateway's subscription for {name} ends in {n} day",
            "The gateway's subscription for {name} ends in {n} days",
            days,
        )
        return words.format(name=_name(item.name), n=days)

    def _counted(self, items: Iterable[MessageItem]) -> str:
        groups = [self._title(item) for item in items if item.group is not None and item.group.is_tenants]
        single = [item for item in items if item.group is None or not item.group.is_tenants]
        unlinked = [item for item in single if item.event is Event.INCIDENT_OPENED]
        if unlinked and not self._message.is_reminder and all(map(_is_unlinked, unlinked)):
            single = [item for item in single if item not in unlinked]
            words = self._words.ngettext(
                "{n} device was unlinked", "{n} devices were unlinked", len(unlinked)
            )
            groups.append(words.format(n=len(unlinked)))
        counts = Counter((item.event, item.still_down or self._message.is_reminder) for item in single)
        counted = [self._count(event, again, n) for (event, again), n in counts.items()]
        return format_list([*groups, *counted], locale=self._locale)

    def _count(self, event: Event, is_again: bool, n: int) -> str:
        ngettext = self._words.ngettext
        match event, is_again:
            case Event.INCIDENT_OPENED, False:
                words = ngettext("{n} channel lost its connection", "{n} channels lost their connection", n)
            case Event.INCIDENT_OPENED, True:
                words = ngettext(
                    "{n} channel is still without connection", "{n} channels are still without connection", n
                )
            case Event.INCIDENT_RESOLVED, _:
                words = ngettext("{n} channel is connected again", "{n} channels are connected again", n)
            case Event.GATEWAY_OPENED, _:
                words = ngettext("{n} gateway is in trouble", "{n} gateways are in trouble", n)
            case Event.GATEWAY_RESOLVED, _:
                words = ngettext("{n} gateway is back", "{n} gateways are back", n)
            case Event.EXPIRING, _:
                words = ngettext("{n} subscription ends soon", "{n} subscriptions end soon", n)
            case _:
                words = ngettext("{n} channel changed its state", "{n} channels changed their state", n)
        return words.format(n=n)

    def _details(self, item: MessageItem) -> Iterator[str]:
        yield from cause_details(self._words, item)
        if item.affected is not None and (item.group is None or not item.group.is_tenants):
            words = self._words.ngettext(
                "{n} channel is affected.", "{n} channels are affected.", item.affected
            )
            yield words.format(n=item.affected)
        if item.reason is not None and item.resolved_at is None:
            yield reason_text(item.reason, self._message.locale)
        yield self._when(item)

    def _when(self, item: MessageItem) -> str:
        if item.expires_at is not None:
            words = self.say(N_("It is paid until {end}. Renew it, or the channel will be lost."))
            return words.format(end=self._time(item.expires_at))
        start = self._time(item.started_at)
        if item.resolved_at is not None:
            words = self.say(N_("It lasted {duration}, from {start} to {end}."))
            duration = self._duration(item.resolved_at - item.started_at)
            return words.format(duration=duration, start=start, end=self._time(item.resolved_at))
        if self._message.is_reminder:
            words = self.say(N_("Since {start}, {duration} ago."))
            return words.format(duration=self._duration(self._message.at - item.started_at), start=start)
        return self.say(N_("Since {start}.")).format(start=start)

    def _time(self, at: datetime) -> str:
        there = at.astimezone(self._zone)
        day, time = (
            format_date(there, "medium", self._locale),
            format_time(there, "short", locale=self._locale),
        )
        return f"{day}, {time} ({get_timezone_gmt(there, 'long', self._locale)})"

    def _duration(self, length: timedelta) -> str:
        """Return the two greatest units: seconds beside hours are noise."""
        rest = max(0, int(length.total_seconds()))
        words: list[str] = []
        for unit, seconds in UNITS:
            count, rest = divmod(rest, seconds)
            if count or (unit == "second" and not words):
                part = timedelta(seconds=count * seconds)
                words.append(format_timedelta(part, unit, EXACT, locale=self._locale))
            elif words:
                break
        return format_list(words[:2], locale=self._locale)


def _is_unlinked(item: MessageItem) -> bool:
    return item.reason is Reason.LOGGED_OUT


def _name(name: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return line if len(line) <= NAME_SHOWN else line[: NAME_SHOWN - 1] + "…"


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    # Another application may own the tenants table.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC
