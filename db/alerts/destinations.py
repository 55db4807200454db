"""Destinations as rows, their configuration sealed; sends nothing.

A reader of one tenant (`reader`; None: of all) neither sees nor changes another's, nor the operators'.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from db.connection.json_columns import dump, load
from db.connection.tenant_scope import reading, writing
from db.connection.types import Connection, Pool, Record
from db.queries import sql
from db.registry.tenants import UnknownTenant
from db.vault import Vault, VaultError

ALERT_URL: Final = "ALERT_URL"
"""The name of the destination made from the setting, which identifies it."""

Config = Mapping[str, object]


class UnknownDestination(Exception):
    """There is no such destination, or not for this tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSpec:
    """A destination to write; of tenant None: operators' own."""

    tenant_id: UUID | None
    kind: str
    config: Config = field(repr=False)
    events: Sequence[str]
    name: str | None = None
    reminder_minutes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A stored destination; the config None: no secret key opens it."""

    id: UUID
    tenant_id: UUID | None
    kind: str
    name: str | None
    config: Config | None = field(repr=False)
    events: tuple[str, ...]
    reminder_minutes: int | None
    created_at: datetime
    updated_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_why: str | None


def destination_identity(destination_id: UUID) -> str:
    """Return the identity that a destination's configuration is sealed for."""
    return f"destination:{destination_id}"


def open_config(vault: Vault, destination_id: UUID, sealed: bytes) -> Config:
    """Return a configuration; raise `VaultError` when no key opens it."""
    config = load(vault.open(sealed, destination_identity(destination_id)))
    return config if isinstance(config, dict) else {}


def seal_config(vault: Vault, destination_id: UUID, config: Config) -> bytes:
    """Return a configuration, sealed."""
    return vault.seal(dump(dict(config)), destination_identity(destination_id))


async def list_destinations(
    pool: Pool, vault: Vault, reader: UUID | None, tenant_id: UUID | None, after: UUID | None, limit: int
) -> list[Destination]:
    """Return at most `limit` destinations in the order of their ids; of one tenant when one is wanted."""
    if reader is not None and tenant_id not in (None, reader):
        return []
    async with reading(pool, reader) as connection:
        rows = await connection.fetch(sql.list_destinations, tenant_id or reader, after, limit)
    return [_destination(vault, row) for row in rows]


async def read_destination(
    pool: Pool, vault: Vault, reader: UUID | None, destination_id: UUID
) -> Destination:
    """Return one destination, or raise `UnknownDestination`."""
    async with reading(pool, reader) as connection:
        row = await connection.fetchrow(sql.show_destination, destination_id, reader)
    if row is None:
        raise UnknownDestination
    return _destination(vault, row)


async def create_destination(pool: Pool, vault: Vault, reader: UUID | None, new: DestinationSpec) -> UUID:
    """Return the id of a new destination; `UnknownTenant`."""
    async with writing(pool, reader) as connection:
        if new.tenant_id is not None and not await connection.fetchval(sql.tenant_exists, new.tenant_id):
            raise UnknownTenant
        return await _insert(connection, vault, new)


async def in_app_of(pool: Pool, vault: Vault, tenant_id: UUID) -> UUID:
    """Return the tenant's `in_app` destination, made if need be; `UnknownTenant`."""
    found: UUID | None = await pool.fetchval(sql.find_in_app, tenant_id)
    if found is not None:
        return found
    async with writing(pool, tenant_id) as connection:
        if not await connection.fetchval(sql.tenant_exists, tenant_id):
            raise UnknownTenant
        new = uuid4()
        await connection.execute(
            sql.insert_in_app, new, tenant_id, seal_config(vault, new, {"recipients": "admins"})
        )
        found = await connection.fetchval(sql.find_in_app, tenant_id)
    assert found is not None
    return found


async def change_destination(
    pool: Pool,
    vault: Vault,
    reader: UUID | None,
    destination_id: UUID,
    given: Mapping[str, object],
    configure: Callable[[Record, Config], Config] | None,
) -> None:
    """Write the given fields; `configure` makes the new configuration of the row and the old one.

    Raises `UnknownDestination`, `VaultError` when the old configuration is needed and can't be opened, and
    whatever `configure` raises; then nothing is changed.
    """
    async with writing(pool, reader) as connection:
        row = await connection.fetchrow(sql.lock_destination, destination_id, reader)
        if row is None:
            raise UnknownDestination
        sealed = None
        if configure is not None:
            config = configure(row, open_config(vault, destination_id, row["config"]))
            sealed = seal_config(vault, destination_id, config)
        columns = [given.get(name, row[name]) for name in ("name", "events", "reminder_minutes")]
        name, events, reminder_minutes = columns
        await connection.execute(
            sql.update_destination, destination_id, name, sealed, events, reminder_minutes
        )
        if "enabled" in given:
            await connection.execute(sql.enable_destination, destination_id, given["enabled"])


async def delete_destination(pool: Pool, reader: UUID | None, destination_id: UUID) -> None:
    """Forget a destination with its deliveries; `UnknownDestination`."""
    async with writing(pool, reader) as connection:
        if await connection.fetchrow(sql.lock_destination, destination_id, reader) is None:
            raise UnknownDestination
        await connection.execute(sql.delete_destination, destination_id)


async def ensure_alert_url(connection: Connection, vault: Vault, new: DestinationSpec, given: Config) -> bool:
    """Make the setting's destination, unless operators have it already; return whether anything changed.

    `given` is the part of the configuration `new.config` that the setting fixes. A destination made from the
    setting before, and not renamed, is changed to it.
    """
    async with connection.transaction():
        await connection.execute(sql.lock_alert_url)
        rows = await connection.fetch(sql.operators_destinations)
        if any(row["kind"] == new.kind and _holds(vault, row, given) for row in rows):
            return False
        former = next((row["id"] for row in rows if row["name"] == new.name), None)
        if former is None:
            await _insert(connection, vault, new)
        else:
            sealed = seal_config(vault, former, new.config)
            await connection.execute(sql.redirect_destination, former, new.kind, sealed)
    return True


def _holds(vault: Vault, row: Record, given: Config) -> bool:
    config = _opened(vault, row)
    return config is not None and given.items() <= config.items()


async def language_of(pool: Pool, tenant_id: UUID | None) -> tuple[str, str]:
    """Return the language and the time zone of messages to a tenant, or (None) to operators."""
    row = None if tenant_id is None else await pool.fetchrow(sql.language_of, tenant_id)
    return ("pt-BR", "America/Sao_Paulo") if row is None else (row["locale"], row["time_zone"])


async def _insert(connection: Connection, vault: Vault, new: DestinationSpec) -> UUID:
    destination_id = uuid4()
    await connection.execute(
        sql.insert_destination,
        destination_id,
        new.tenant_id,
        new.kind,
        new.name,
        seal_config(vault, destination_id, new.config),
        list(new.events),
        new.reminder_minutes,
    )
    return destination_id


def _destination(vault: Vault, row: Record) -> Destination:
    return Destination(**{**row, "config": _opened(vault, row), "events": tuple(row["events"])})


def _opened(vault: Vault, row: Record) -> Config | None:
    try:
        return open_config(vault, row["id"], row["config"])
    except VaultError:
        return None
