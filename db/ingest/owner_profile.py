"""Writes channels' owners to `notification_channels`, which other applications read, too.

What a gateway didn't report stays as it is, and so does the same number in another notation.
"""

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import asyncpg

from db.codec.channel_record import ChannelRecord
from db.connection.retry import TRANSIENT
from db.connection.types import Connection
from db.ingest.entry import OwnerProfile
from db.queries import sql

log = logging.getLogger(__name__)


class OwnerUpdate(NamedTuple):
    """The fields of a channel's owner to write; None: leave as it is."""

    channel_id: UUID
    phone: str | None
    profile: str | None


def owner_update_of(owner: OwnerProfile, row: ChannelRecord) -> OwnerUpdate | None:
    """Return what differs from the channel's row of `read_channels`; None: nothing does."""
    stored = re.sub(r"\D", "", row["phone_number"] or "")
    phone = None if owner.phone == stored else owner.phone
    profile = None if owner.profile == row["profile_name"] else owner.profile
    return OwnerUpdate(row["channel_id"], phone, profile) if phone or profile else None


async def show_owners(connection: Connection, updates: Sequence[OwnerUpdate]) -> None:
    """Write the owners; an update that another application's table refuses is logged and skipped.

    A set that is refused is written in halves, so that the other updates are kept.
    """
    if not updates:
        return
    try:
        async with connection.transaction():
            await connection.execute(sql.show_owners, *map(list, zip(*updates, strict=True)))
    except TRANSIENT:
        raise
    except asyncpg.PostgresError as error:
        half = len(updates) // 2
        if half:
            await show_owners(connection, updates[:half])
            await show_owners(connection, updates[half:])
            return
        # The error's message may contain a row's values.
        name, channel_id = type(error).__name__, updates[0].channel_id
        log.warning("notification_channels takes no phone or profile of channel %s: %s", channel_id, name)
