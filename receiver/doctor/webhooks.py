"""Checks where gateways send their webhooks: to this service, to another system, or nowhere.

Of an address of another system only the host is reported.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

from db import diagnosis
from db.diagnosis import Finding, Report, TokenOwner, WatchedChannel, about, note, problem
from db.registry.tokens import hash_token
from db.vault import Vault
from receiver.doctor.address import why_unanswered
from receiver.doctor.installation import Installation, is_carried, key_of
from receiver.outbound.client import Client, Unanswered
from receiver.providers import PROVIDERS
from receiver.providers.report import Question
from receiver.provisioning.webhook_registration import token_in
from receiver.settings import Settings, variable

AT_ONCE: Final = 8
"""Calls to gateways at the same time."""
PER_GATEWAY: Final = 20
"""Channels of one gateway that are asked where their webhooks go."""
IN_ALL: Final = 200
"""The same, over all gateways."""
LATELY: Final = timedelta(days=1)
"""A channel with an event within this time receives events, whatever its own webhook setting says."""


class _WebhookSetting(NamedTuple):
    """The webhook addresses of a channel; None: not answered, and `instead` says what came back."""

    channel: WatchedChannel
    addresses: tuple[str, ...] | None
    instead: str


async def check_webhooks(seen: Installation) -> list[Finding]:
    """Find channels whose webhooks go elsewhere, nowhere, or here in vain; of many, a sample is asked."""
    askable = [channel for channel in seen.channels if _question(seen.vault, channel) is not None]
    asked = _sample(askable)
    settings_read = await _ask(asked, seen.vault, seen.client)
    hashes = [
        hash_token(t[1])
        for one in settings_read
        for address in one.addresses or ()
        if (t := token_in(address))
    ]
    owners = await diagnosis.token_owners(seen.connection, hashes)
    shared = {gateway.id for gateway in seen.gateways if gateway.has_webhook}
    faults: dict[str, dict[str, None]] = defaultdict(dict)
    for one in settings_read:
        for code, where in _faults(one, seen.settings.base_url, owners, shared):
            faults[code][where] = None
    found = [f for code in _WEBHOOKS for f in _webhook_findings(code, list(faults[code]), seen.settings)]
    if len(asked) < len(askable):
        what = f"Only {len(asked):,} of {len(askable):,} channels were asked where their webhooks go."
        found.append(
            note("sample", what, "Those that were silent for longest were asked first; run it again.")
        )
    return found


_SET: Final = "Set its address there again: `zapwatch token create --channel ID` makes one."
_WEBHOOKS: Final[dict[str, tuple[Report, str, str]]] = {
    "foreign_webhook": (problem, "Webhooks go to somebody else", _SET),
    "no_webhook": (problem, "Sends us nothing by itself: probing alone finds losses, within {stale}", _SET),
    "refused_webhook": (problem, "Webhooks come to us with a token that is unknown or revoked", _SET),
    "crossed_webhook": (problem, "Webhooks go to the address of another channel", _SET),
    "shared_webhook": (
        note,
        "No webhook of its own; heard of through its gateway's, which tells no logout and no removal",
        _SET,
    ),
    "other_host": (
        note,
        "Webhooks go to an address of ours on another host, and none came for a day",
        f"Does that host lead here? If not, set {variable('public_url')}, and the address there again.",
    ),
    "unasked": (note, "Did not say where webhooks go", "See that the gateway answers, with this key."),
}


def _webhook_findings(code: str, things: Sequence[str], settings: Settings) -> list[Finding]:
    report, what, do = _WEBHOOKS[code]
    return about(report, code, what.format(stale=f"{settings.stale_after.total_seconds():g} s"), things, do)


def _question(vault: Vault | None, channel: WatchedChannel) -> Question | None:
    key, provider = key_of(vault, channel), PROVIDERS.get(channel.provider)
    if key is None or channel.instance is None or not channel.base_url or not is_carried(channel, key):
        return None
    return None if provider is None else provider.ask_webhooks(channel.instance, key)


def _sample(channels: Sequence[WatchedChannel]) -> list[WatchedChannel]:
    """Return some channels of each gateway, gateways taking turns, in the order given."""
    counts: Counter[UUID | None] = Counter()
    ranked = []
    for channel in channels:
        ranked.append((counts[channel.gateway_id], channel))
        counts[channel.gateway_id] += 1
    ranked.sort(key=lambda one: one[0])
    return [channel for rank, channel in ranked if rank < PER_GATEWAY][:IN_ALL]


async def _ask(asked: Sequence[WatchedChannel], vault: Vault | None, client: Client) -> list[_WebhookSetting]:
    slots, silent = asyncio.Semaphore(AT_ONCE), dict[UUID | None, str]()

    async def ask(channel: WatchedChannel) -> _WebhookSetting:
        async with slots:
            if channel.gateway_id in silent:
                return _WebhookSetting(channel, None, silent[channel.gateway_id])
            question = _question(vault, channel)
            assert question is not None
            try:
                reply = await client.get(channel.base_url + question.path, question.headers)
            except Unanswered as error:
                why = silent.setdefault(channel.gateway_id, f"{channel.base_url}: {why_unanswered(error)}")
                return _WebhookSetting(channel, None, why)
            addresses = PROVIDERS[channel.provider].read_webhooks(reply.status, reply.body)
            return _WebhookSetting(channel, addresses, f"{channel}: HTTP {reply.status}")

    return await asyncio.gather(*(ask(channel) for channel in asked))


def _faults(
    setting: _WebhookSetting, base_url: str, owners: Mapping[bytes, TokenOwner], shared: Set[UUID]
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with each of a channel's addresses, and where: of a foreign one only the host."""
    channel, name = setting.channel, str(setting.channel)
    lately = channel.last_event_at is not None and channel.last_event_at > datetime.now(UTC) - LATELY
    if setting.addresses is None:
        yield "unasked", setting.instead
    elif not setting.addresses:
        yield ("shared_webhook" if lately and channel.gateway_id in shared else "no_webhook"), name
    for address in setting.addresses or ():
        token, here = token_in(address), _leads_to(base_url, address)
        owner = None if token is None else owners.get(hash_token(token[1]))
        if token is None or (owner is None and not here):
            yield "foreign_webhook", f"{name} to {_host(address)}"
        elif owner is None or token[0] != channel.provider:
            yield "refused_webhook", name
        elif channel.channel_id != owner.channel_id and channel.gateway_id != owner.gateway_id:
            yield "crossed_webhook", name
        elif not here and not lately:
            yield "other_host", f"{name} to {_host(address)}"


def _leads_to(base_url: str, address: str) -> bool:
    return _origin(address) == _origin(base_url) and urlsplit(address).path.startswith(
        f"{urlsplit(base_url).path}/webhooks/"
    )


def _origin(address: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def _host(address: str) -> str:
    return _origin(address)[1] or "an address that is none"
