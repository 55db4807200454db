"""What the commands share: options for settings, a run whose errors end in a message, and the database."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import asyncpg
import click

from db.connection.pool import connect, open_pool
from db.connection.retry import TRANSIENT
from db.connection.types import Connection, Pool
from db.embedded.data_dir import relocate
from db.embedded.running import embedded_or_running
from db.embedded.server import EmbeddedError
from db.ingest.queue import NotCommitted
from db.migrate import MigrationError
from db.vault import Vault, VaultError, kept_keys
from receiver.settings import (
    DECLARED,
    DEFAULT_DATA_DIR,
    PREFIX,
    Settings,
    SettingsError,
    load_settings,
    variable,
)
from receiver.telemetry.logs import redact

WRONG_SETTINGS: Final = 2
Command = TypeVar("Command", bound=Callable[..., object])
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


def settings_of(options: Mapping[str, str | None], environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings from options and environment, or say all that is wrong and exit with 2.

    Names that are no settings are left for `serve` to warn of.
    """
    try:
        return load_settings(environ, options)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(WRONG_SETTINGS)


def run(work: Coroutine[object, None, Result]) -> Result:
    """Run it to its end; what an operator can act on becomes one line and exit 1."""
    try:
        return asyncio.run(work)
    except (EmbeddedError, MigrationError, VaultError) as error:
        raise click.ClickException(str(error)) from None
    except NotCommitted as error:
        raise click.ClickException(f"The answer was not kept: {error}.") from None
    except asyncpg.UndefinedTableError:
        raise click.ClickException("The database isn't migrated; run `zapwatch migrate`.") from None
    except (*TRANSIENT, asyncpg.PostgresError) as error:
        raise click.ClickException(redact(f"The database can't be used: {error}")) from None


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[str]:
    """Yield the DSN of the database that the settings name; the embedded one is started unless it runs."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    if settings.data_dir == DEFAULT_DATA_DIR:
        relocate(settings.data_dir)
    async with embedded_or_running(settings.data_dir) as dsn:
        yield dsn


async def with_connection(settings: Settings, work: Callable[[Connection], Awaitable[Result]]) -> Result:
    """Return what the work does with a connection."""
    async with open_database(settings) as dsn:
        connection = await connect(dsn, "zapwatch command")
        try:
            return await work(connection)
        finally:
            await connection.close()


async def with_pool(settings: Settings, work: Callable[[Pool], Awaitable[Result]]) -> Result:
    """Return what the work does with a pool of connections."""
    async with open_database(settings) as dsn, await open_pool(dsn, "zapwatch command") as pool:
        return await work(pool)


def vault_of(settings: Settings) -> Vault:
    """Return the vault that opens what the service sealed; embedded, its keys lie in the data folder."""
    return Vault(settings.secret_keys or kept_keys(settings.data_dir / "secret_keys"))
