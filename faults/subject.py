"""Channels that were told of something, and whether they stand where they should; tells nothing itself."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from faults.gateway import Instance
from faults.history import Outcome
from faults.service import Service

SETTLES_WITHIN: Final = 300.0
"""Seconds after the last word within which all must stand where they should: what falls together is its
gateway's incident for two minutes more, and a minute later what is still down gets its own."""
STAYS: Final = 4.0
"""Seconds after which they must still: longer than any grace that they have."""
NAMED: Final = 5
"""Of those that do not, how many are named."""


class Subject(NamedTuple):
    """A channel, and where it may stand in the end."""

    instance: Instance
    outcomes: Collection[Outcome]


class Settled(NamedTuple):
    """Where the channels stand in the end, who stands elsewhere, and the seconds until nobody did."""

    found: Mapping[UUID, Outcome]
    differing: Sequence[Subject]
    after: float

    def told(self, subjects: Sequence[Subject]) -> str:
        """Return how many differ, in words; the first of them by name."""
        count = f"{len(self.differing)} of {len(subjects)} channels differ"
        if not self.differing:
            return f"{count}, the last agreed after {self.after:.1f} s"
        names = (f"{it.instance.name}: {self.found[it.instance.channel]}" for it in self.differing[:NAMED])
        return f"{count} ({', '.join(names)})"


async def settle(service: Service, subjects: Sequence[Subject], with_reasons: bool) -> Settled:
    """Wait until all stand where they should, and look again a while later."""
    now = asyncio.get_running_loop().time
    began = now()
    settled = await _look(service, subjects, with_reasons, 0.0)
    while settled.differing and now() - began < SETTLES_WITHIN:
        await asyncio.sleep(0.2)  # the service tells nobody
        settled = await _look(service, subjects, with_reasons, now() - began)
    if settled.differing:
        return settled
    await asyncio.sleep(STAYS)
    return await _look(service, subjects, with_reasons, settled.after)


async def _look(service: Service, subjects: Sequence[Subject], with_reasons: bool, after: float) -> Settled:
    found: dict[UUID, Outcome] = {}
    for shown in await service.items("/channels"):
        reason = (shown["reason"] or {}).get("code") if with_reasons else None
        kind = (shown["incident"] or {}).get("kind")
        found[UUID(shown["channel_id"])] = Outcome(shown["state"], reason, kind)
    differing = [it for it in subjects if found[it.instance.channel] not in it.outcomes]
    return Settled(found, differing, after)
