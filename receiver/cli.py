"""The command line: `zapwatch serve | migrate | channels | incidents | token create`.

Except for `serve` the commands talk to the database themselves, and need no running service.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
import click
import orjson
from rich.console import Console
from rich.table import Table

from db import reads
from db.connections import Connection, Pool
from db.embedded import EmbeddedError
from db.lodging import lodge
from db.migrate import MigrationError
from db.migrate import migrate as apply_migrations
from db.pool import TRANSIENT, connect, open_pool
from db.queries import sql
from db.running import embedded_or_running
from db.tokens import create_channel_token, create_gateway_token, create_operator_token
from receiver.api import views
from receiver.api.channels import SHOWN_STATES
from receiver.api.endpoint import Json
from receiver.logs import redact
from receiver.settings import (
    DECLARED,
    DEFAULT_DATA_DIR,
    PREFIX,
    Settings,
    SettingsError,
    load_settings,
    variable,
)

WRONG_SETTINGS: Final = 2
PAGE: Final = 500
Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each of these settings (none named: for all).

    Secrets are taken from files only: a process list shows options. DATABASE_URL often holds none.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names or tuple(DECLARED)):
            setting, option = DECLARED[name], variable(name).removeprefix(PREFIX).lower().replace("_", "-")
            if setting.secret:
                command = click.option(f"--{option}-file", metavar="PATH", help=setting.help)(command)
            if not setting.secret or name == "database_url":
                command = click.option(f"--{option}", metavar="VALUE", help=setting.help)(command)
        return command

    return decorate


def _settings(options: dict[str, Any]) -> Settings:
    """Return the settings from options and environment, or say all that is wrong and exit with 2.

    Names that are no settings are left for `serve` to warn of.
    """
    try:
        return load_settings(os.environ, options)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(WRONG_SETTINGS)


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it to its end; what an operator can act on becomes one line and exit 1."""
    try:
        return asyncio.run(work)
    except (EmbeddedError, MigrationError) as error:
        raise click.ClickException(str(error)) from None
    except asyncpg.UndefinedTableError:
        raise click.ClickException("The database isn't migrated; run `zapwatch migrate`.") from None
    except (*TRANSIENT, asyncpg.PostgresError) as error:
        raise click.ClickException(redact(f"The database can't be used: {error}")) from None


@asynccontextmanager
async def _dsn(settings: Settings) -> AsyncIterator[str]:
    if settings.database_url is not None:
        yield settings.database_url
        return
    if settings.data_dir == DEFAULT_DATA_DIR:
        lodge(settings.data_dir)
    async with embedded_or_running(settings.data_dir) as dsn:
        yield dsn


async def _with_connection(settings: Settings, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    async with _dsn(settings) as dsn:
        connection = await connect(dsn, "zapwatch command")
        try:
            return await work(connection)
        finally:
            await connection.close()


async def _with_pool(settings: Settings, work: Callable[[Pool], Awaitable[Result]]) -> Result:
    async with _dsn(settings) as dsn, await open_pool(dsn, "zapwatch command") as pool:
        return await work(pool)


@click.group()
@click.version_option(package_name="zapwatch")
def cli() -> None:
    """Watches fleets of WhatsApp channels."""


@cli.command()
@settings_options()
def serve(**options: Any) -> None:
    """Run the service."""
    settings = _settings(options)
    # Not needed by the other commands, and slow to import.
    from receiver.app import serve as serve_app

    sys.exit(serve_app(settings))


@cli.command()
@settings_options("database_url", "data_dir")
def migrate(**options: Any) -> None:
    """Apply migrations and print what was applied."""
    names = _run(_with_connection(_settings(options), apply_migrations))
    click.echo("\n".join(names) if names else "up to date")


@cli.command()
@click.option("--state", type=click.Choice(SHOWN_STATES), help="only channels in this state")
@click.option("--tenant", "tenant_id", type=click.UUID, help="only channels of this tenant")
@click.option("--json", "as_json", is_flag=True, help="print JSON, as the API gives it")
@settings_options("database_url", "data_dir")
def channels(state: str | None, tenant_id: UUID | None, as_json: bool, **options: Any) -> None:
    """Show the channels and their states."""
    wanted = reads.ChannelFilter(state=state, tenant_id=tenant_id)

    async def work(pool: Pool) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        after = None
        while rows := await reads.list_channels(pool, None, wanted, after, PAGE):
            shown += [views.channel_in_list(row) for row in rows]
            after = rows[-1].row["channel_id"]
        return shown

    shown = _run(_with_pool(_settings(options), work))
    if as_json:
        _print_json(shown)
        return
    table = Table("Channel", "Name", "Instance", "Provider", "State", "Since (UTC)", "Reason", "Incident")
    for item in sorted(shown, key=lambda item: (item["name"] or "", item["instance"] or "")):
        reason, incident = item["reason"] or {}, item["incident"] or {}
        _add_row(
            table,
            item["channel_id"],
            item["name"],
            item["instance"],
            item["provider"],
            item["state"],
            item["since"],
            reason.get("code"),
            incident.get("started_at"),
        )
    _print_table(table)


@cli.command()
@click.option("--status", type=click.Choice(("open", "resolved", "all")), default="all", show_default=True)
@click.option("--tenant", "tenant_id", type=click.UUID, help="only incidents of this tenant")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print JSON, as the API gives it")
@settings_options("database_url", "data_dir")
def incidents(status: str, tenant_id: UUID | None, limit: int, as_json: bool, **options: Any) -> None:
    """Show incidents, newest first."""
    wanted = reads.IncidentFilter(open={"open": True, "resolved": False}.get(status), tenant_id=tenant_id)

    async def work(pool: Pool) -> list[dict[str, Any]]:
        return [views.incident(row) for row in await reads.list_incidents(pool, None, wanted, None, limit)]

    shown = _run(_with_pool(_settings(options), work))
    if as_json:
        _print_json(shown)
        return
    table = Table("Incident", "Channel", "Provider", "Kind", "Started (UTC)", "Resolved (UTC)", "Seconds")
    for item in shown:
        columns = ("id", "channel_id", "provider", "kind", "started_at", "resolved_at", "duration_seconds")
        _add_row(table, *(item[column] for column in columns))
    _print_table(table)


@cli.group()
def token() -> None:
    """Tokens of operators, channels and gateways."""


@token.command()
@click.option("--name", help="whose it is, for an operator's token")
@click.option("--tenant", "tenant_id", type=click.UUID, help="limits an operator's token to this tenant")
@click.option("--channel", "channel_id", type=click.UUID, help="makes a new webhook address of this channel")
@click.option("--gateway", "gateway_id", type=click.UUID, help="makes a new webhook address of this gateway")
@click.option("--revoke-others", is_flag=True, help="ends the other webhook addresses, within 30 s")
@settings_options("database_url", "data_dir", "host", "port", "public_url")
def create(
    name: str | None,
    tenant_id: UUID | None,
    channel_id: UUID | None,
    gateway_id: UUID | None,
    revoke_others: bool,
    **options: Any,
) -> None:
    """Make a token; it is printed now and never again."""
    given = [item for item in (tenant_id or name, channel_id, gateway_id) if item is not None]
    if len(given) > 1:
        raise click.UsageError("Give --channel, --gateway, or --name and --tenant.")
    if revoke_others and channel_id is None and gateway_id is None:
        raise click.UsageError("--revoke-others goes with --channel or --gateway.")
    settings = _settings(options)

    async def work(connection: Connection) -> str | None:
        if channel_id is None and gateway_id is None:
            return await _operator_token(connection, name, tenant_id)
        return await _webhook_address(connection, settings.base_url, channel_id, gateway_id, revoke_others)

    made = _run(_with_connection(settings, work))
    if made is None:
        raise click.ClickException("There is nothing with this id.")
    click.echo(made)


async def _operator_token(connection: Connection, name: str | None, tenant_id: UUID | None) -> str | None:
    if tenant_id is not None and not await connection.fetchval(sql.tenant_exists, tenant_id):
        return None
    return await create_operator_token(connection, name, tenant_id)


async def _webhook_address(
    connection: Connection, base: str, channel_id: UUID | None, gateway_id: UUID | None, revoke_others: bool
) -> str | None:
    provider = await connection.fetchval(sql.provider_of, channel_id, gateway_id)
    if provider is None:
        return None
    if channel_id is not None:
        made = await create_channel_token(connection, channel_id, revoke_others=revoke_others)
    else:
        assert gateway_id is not None
        made = await create_gateway_token(connection, gateway_id, revoke_others=revoke_others)
    return f"{base}/webhooks/{provider}/{made}"


def _add_row(table: Table, *cells: object) -> None:
    table.add_row(*(_cell(cell) for cell in cells))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    # Names come from outside: what they hold must not move the cursor of somebody's terminal.
    return "".join(char if char.isprintable() else "?" for char in str(value))


def _print_table(table: Table) -> None:
    # Piped, a table is as wide as it needs: cut cells can't be searched.
    width = None if sys.stdout.isatty() else 250
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def _print_json(value: object) -> None:
    click.echo(orjson.dumps(orjson.loads(Json(value).body), option=orjson.OPT_INDENT_2).decode())
