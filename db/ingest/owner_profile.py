"""Whose numbers channels are, as `notification_channels` shows it to the applications beside us.

What a gateway didn't tell stays as it is, and so does a number that somebody writes otherwise.
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
    """What is to be written of a channel's owner; None: nothing."""

    channel_id: UUID
    phone: str | None
    profile: str | None


def news_of(owner: OwnerProfile, row: ChannelRecord) -> OwnerUpdate | None:
    """Return what is new of a channel's owner, given its row of `read_channels`; None: nothing is."""
    written = re.sub(r"\D", "", row["phone_number"] or "")
    phone = None if owner.phone == written else owner.phone
    profile = None if owner.profile == row["profile_name"] else owner.profile
    return OwnerUpdate(row["channel_id"], phone, profile) if phone or profile else None


async def show_owners(connection: Connection, news: Sequence[OwnerUpdate]) -> None:
    """Show whose numbers channels are; what another application's table refuses costs nothing else.

    Not the owners of other channels either: a set that is refused is written in halves.
    """
    if not news:
        return
    try:
        async with connection.transaction():
            await connection.execute(sql.show_owners, *map(list, zip(*news, strict=True)))
    except TRANSIENT:
        raise
    except asyncpg.PostgresError as error:
        half = len(news) // 2
        if half:
            await show_owners(connection, news[:half])
            await show_owners(connection, news[half:])
            return
        # Its own words may hold what is in a row.
        name, channel_id = type(error).__name__, news[0].channel_id
        log.warning("notification_channels takes no phone or profile of channel %s: %s", channel_id, name)
