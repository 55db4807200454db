"""Notifications as rows of a table that may be another application's; writes only `read_at`.

The table is not forced under row security, so each statement names the tenant. Other applications'
notifications are not read: their contents are unknown.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from db.connection.types import Pool, Record
from db.queries import sql

TYPES: Final = ("instance_disconnected", "system_alert")
"""The types that Zapwatch writes."""


async def list_notifications(
    pool: Pool,
    tenant_id: UUID | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
    *,
    unread: bool = False,
) -> list[Record]:
    """Return at most `limit` notifications of a tenant, or (None) of all, newest first."""
    page = before or (None, None)
    return await pool.fetch(sql.list_notifications, tenant_id, TYPES, unread, *page, limit)


async def read_notification(pool: Pool, tenant_id: UUID | None, notification_id: UUID) -> Record | None:
    """Note that a notification was read, and return it; None when there is none for this tenant."""
    return await pool.fetchrow(sql.read_notification, notification_id, tenant_id, TYPES)
