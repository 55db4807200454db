"""`zapwatch import`: registers a gateway and every instance on it."""

from typing import Any
from uuid import UUID

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from receiver.cli.command import open_database, run, settings_of, settings_options, vault_of
from receiver.settings import Settings


@click.command("import")
@click.argument("provider", type=click.Choice(["evolution_api", "wapi"]))
@click.option("--url", help="the gateway's address; W-API's own is known")
@click.option(
    "--api-key", required=True, help="the key that shows all instances: global, or the integrator's"
)
@click.option(
    "--tenant", "tenant_id", type=click.UUID, help="whose new channels are; without it: `default`'s"
)
@settings_options("database_url", "data_dir", "secret_keys", "host", "port", "public_url")
def import_(provider: str, url: str | None, api_key: str, tenant_id: UUID | None, **options: Any) -> None:
    """Register a gateway and every instance on it.

    Once more changes nothing but adds what is new. The running service probes the channels.
    """
    from db.address import AddressError
    from db.tenants import UnknownTenant
    from receiver.imports import NotListed

    settings = settings_of(options)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            found, new, token = run(_import(settings, provider, url, api_key, tenant_id, progress))
    except (AddressError, NotListed) as reason:
        raise click.ClickException(str(reason)) from None
    except UnknownTenant:
        raise click.ClickException("There is no such tenant.") from None
    click.echo(f"{found} instances are there: {new} new channels, {found - new} known before.")
    if token is not None:
        click.echo(
            f"Webhook address of the gateway, shown once: {settings.base_url}/webhooks/{provider}/{token}"
        )


async def _import(
    settings: Settings,
    provider: str,
    url: str | None,
    api_key: str,
    tenant_id: UUID | None,
    progress: Progress,
) -> tuple[int, int, str | None]:
    from db.address import normalise
    from db.notices import notify
    from db.pool import open_pool
    from db.registry import ensure_gateway
    from receiver.client import open_client
    from receiver.container import localhost
    from receiver.imports import LISTED_WITHIN, list_instances, register
    from receiver.providers import PROVIDERS

    base_url, vault = normalise(provider, url), vault_of(settings)
    bar = progress.add_task("Asking the gateway", total=None)
    async with open_client(LISTED_WITHIN, localhost()) as client:
        listed = await list_instances(client, provider, base_url, api_key)
    progress.update(bar, description="Registering channels", total=len(listed))
    async with open_database(settings) as dsn, await open_pool(dsn, "zapwatch import") as pool:
        key = api_key if PROVIDERS[provider].one_key_for_all else None
        async with pool.acquire() as connection:
            gateway_id, token = await ensure_gateway(connection, vault, provider, base_url, key)
        new = await register(
            pool,
            vault,
            provider,
            gateway_id,
            tenant_id,
            listed,
            lambda done: progress.update(bar, completed=done),
        )
        async with pool.acquire() as connection:
            await notify(connection, gateway_id)
    return len(listed), new, token
