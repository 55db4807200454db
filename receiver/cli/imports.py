"""`zapwatch import` and `zapwatch webhooks restore`: register a whole gateway, and set its webhooks."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from receiver.cli.command import open_database, run, settings_of, settings_options, vault_of
from receiver.settings import Settings, variable

if TYPE_CHECKING:
    from db.connection.types import Pool
    from db.reconcile.webhook_registrations import RegistrationUpdate, WebhookRegistration
    from db.registry.imports import ListedInstance
    from receiver.outbound.client import Client
    from receiver.provisioning.webhook_registration import WebhookRegistrar


@dataclass(frozen=True, slots=True)
class _ImportRequest:
    """The arguments of one import."""

    provider: str
    url: str | None
    api_key: str
    tenant_id: UUID | None
    set_webhooks: bool
    traffic: bool
    replace: bool
    replace_keys: bool


@dataclass(frozen=True, slots=True)
class _ImportServices:
    settings: Settings
    pool: "Pool"
    client: "Client"
    webhook_registrar: "WebhookRegistrar"
    progress: Progress


@click.command("import")
@click.argument("provider")
@click.option("--url", help="the gateway's address; may be left out for a hosted one")
@click.option("--api-key", required=True, help="the key that shows all instances: global, or the account's")
@click.option(
    "--tenant", "tenant_id", type=click.UUID, help="the tenant of new channels; without it: `default`"
)
@click.option("--set-webhooks", is_flag=True, help="sets our webhook address on the instances that have none")
@click.option("--traffic", is_flag=True, help="with it: also subscribes to messages, as proof of life")
@click.option(
    "--replace-webhooks",
    "replace",
    is_flag=True,
    help="with it: replaces other systems' addresses; asks first",
)
@click.option(
    "--replace-keys",
    is_flag=True,
    help="replaces the channels' own keys that the gateway refuses by this one",
)
@settings_options("database_url", "data_dir", "secret_keys", "host", "port", "public_url")
def import_(
    provider: str,
    url: str | None,
    api_key: str,
    tenant_id: UUID | None,
    set_webhooks: bool,
    traffic: bool,
    replace: bool,
    replace_keys: bool,
    **options: str | None,
) -> None:
    """Register a gateway of PROVIDER (evolution_api, ...) and every instance on it.

    Running it again only adds new instances. The running service probes the channels.
    """
    from db.registry.address import AddressError
    from db.registry.tenants import UnknownTenant
    from receiver.providers import MANAGED
    from receiver.provisioning.instances import NotListed

    settings = settings_of(options)
    if set_webhooks and settings.public_url is None:
        raise click.UsageError(f"Set {variable('public_url')} first: gateways must reach the address.")
    if provider not in MANAGED:
        raise click.UsageError(f"{provider!r} is not one of {', '.join(MANAGED)}.")
    if (traffic or replace) and not set_webhooks:
        raise click.UsageError("--traffic and --replace-webhooks go with --set-webhooks.")
    request = _ImportRequest(provider, url, api_key, tenant_id, set_webhooks, traffic, replace, replace_keys)
    try:
        run(_import(settings, request))
    except (AddressError, NotListed) as reason:
        raise click.ClickException(str(reason)) from None
    except UnknownTenant:
        raise click.ClickException("There is no such tenant.") from None


@click.group()
def webhooks() -> None:
    """The webhook addresses that are set on gateways."""


@webhooks.command()
@click.option("--gateway", "gateway_id", type=click.UUID, help="only the channels of this gateway")
@settings_options("database_url", "data_dir", "secret_keys", "host", "port", "public_url")
def restore(gateway_id: UUID | None, **options: str | None) -> None:
    """Restore the addresses of other systems that --replace-webhooks replaced."""

    async def work() -> tuple[int, int]:
        from db.reconcile.webhook_registrations import replaced_registrations

        async with _open_services(settings_of(options)) as services:
            async with services.pool.acquire() as connection:
                registrations = await replaced_registrations(connection, gateway_id)
            bar = services.progress.add_task("Restoring", total=len(registrations))
            done = 0
            for registration in registrations:
                done += await services.webhook_registrar.restore(registration)
                services.progress.advance(bar)
            return done, len(registrations)

    done, wanted = run(work())
    click.echo(f"{done} of {wanted} channels have what they had before.")
    if done < wanted:
        raise SystemExit(1)


@asynccontextmanager
async def _open_services(settings: Settings) -> AsyncIterator[_ImportServices]:
    from db.connection.pool import open_pool
    from receiver.outbound.client import LISTED_WITHIN, open_client
    from receiver.outbound.container import localhost
    from receiver.provisioning.webhook_registration import WebhookRegistrar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    async with (
        open_database(settings) as dsn,
        await open_pool(dsn, "zapwatch import") as pool,
        open_client(LISTED_WITHIN, localhost()) as client,
    ):
        webhook_registrar = WebhookRegistrar(pool, vault_of(settings), client, settings.base_url)
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield _ImportServices(settings, pool, client, webhook_registrar, progress)


async def _import(settings: Settings, request: _ImportRequest) -> None:
    from db.registry.address import normalise
    from receiver.provisioning.instances import list_instances

    base_url = normalise(request.provider, request.url)
    if not base_url:
        raise click.UsageError("Give the gateway's address: --url.")
    async with _open_services(settings) as services:
        bar = services.progress.add_task("Asking the gateway", total=None)
        listed = await list_instances(services.client, request.provider, base_url, request.api_key)
        services.progress.update(bar, description="Registering channels", total=len(listed))
        gateway_id, new, token = await _register(services, request, base_url, listed, bar)
        click.echo(
            f"{len(listed)} instances are there: {new} new channels, {len(listed) - new} known before."
        )
        await _check_keys(services, request, gateway_id, base_url, listed)
        if request.set_webhooks:
            await _set_webhooks(services, request, gateway_id)
        elif token is not None:
            address = f"{settings.base_url}/webhooks/{request.provider}/{token}"
            click.echo(f"Webhook address of the gateway, shown once: {address}")


async def _register(
    services: _ImportServices,
    request: _ImportRequest,
    base_url: str,
    listed: "Sequence[ListedInstance]",
    bar: TaskID,
) -> tuple[UUID, int, str | None]:
    from db.connection.invalidation import notify
    from db.registry.gateways import ensure_gateway
    from receiver.providers import MANAGED
    from receiver.provisioning.instances import register

    vault = vault_of(services.settings)
    key = request.api_key if MANAGED[request.provider].one_key_for_all else None
    async with services.pool.acquire() as connection:
        gateway_id, token = await ensure_gateway(connection, vault, request.provider, base_url, key)
    new = await register(
        services.pool,
        vault,
        request.provider,
        gateway_id,
        request.tenant_id,
        listed,
        lambda done: services.progress.update(bar, completed=done),
    )
    if new:
        # An instance may now be another channel: another application may have deleted the old one.
        async with services.pool.acquire() as connection:
            await notify(connection, gateway_id)
    return gateway_id, new, token


async def _check_keys(
    services: _ImportServices,
    request: _ImportRequest,
    gateway_id: UUID,
    base_url: str,
    listed: "Sequence[ListedInstance]",
) -> None:
    from receiver.provisioning.refused_keys import ListedGateway, check_keys

    services.progress.add_task("Checking the channels' own keys", total=None)
    gateway = ListedGateway(gateway_id, request.provider, base_url, request.api_key)
    vault = vault_of(services.settings)
    keys = await check_keys(services.pool, vault, services.client, gateway, listed, request.replace_keys)
    if request.replace_keys:
        click.echo(f"Refused keys of channels: {keys.refused}; replaced: {keys.replaced}.")
    elif keys.refused:
        click.echo(
            f"Refused keys of channels: {keys.refused}. Run it again with --replace-keys to replace"
            " them by the one that works."
        )


async def _set_webhooks(services: _ImportServices, request: _ImportRequest, gateway_id: UUID) -> None:
    from db.reconcile.webhook_registrations import RegistrationState, registrations_of

    async with services.pool.acquire() as connection:
        registrations = await registrations_of(connection, gateway_id)
    results = await _register_webhooks(services, registrations, request.traffic, replace=False)
    foreign = [registration for registration, update in results if update.state is RegistrationState.FOREIGN]
    if foreign and request.replace and _may_replace(services, results):
        results = [one for one in results if one[1].state is not RegistrationState.FOREIGN]
        results += await _register_webhooks(services, foreign, request.traffic, replace=True)
    counts = Counter(update.state for _, update in results)
    ours, failed = counts[RegistrationState.SET], counts[RegistrationState.FAILED]
    click.echo(f"Channels whose webhooks come here: {ours}; not saved: {failed}.")
    if others := counts[RegistrationState.FOREIGN]:
        click.echo(
            f"Left to another system ({_hosts(results)}): {others}. Probing finds their"
            " losses. The gateway's own address, for its global webhook if that is free:"
            f" {await services.webhook_registrar.address(gateway_id, request.provider)}"
        )


async def _register_webhooks(
    services: _ImportServices, registrations: "Sequence[WebhookRegistration]", traffic: bool, replace: bool
) -> "list[tuple[WebhookRegistration, RegistrationUpdate]]":
    from receiver.provisioning.webhook_registration import register_all

    bar = services.progress.add_task("Setting webhooks", total=len(registrations))
    return await register_all(
        services.webhook_registrar, registrations, traffic, replace, lambda: services.progress.advance(bar)
    )


def _may_replace(
    services: _ImportServices, results: "Sequence[tuple[WebhookRegistration, RegistrationUpdate]]"
) -> bool:
    services.progress.stop()
    hosts = _hosts(results)
    return click.confirm(
        f"Other systems stop hearing of these channels: {hosts}. `zapwatch webhooks restore` puts them back."
        " Replace their addresses?"
    )


def _hosts(results: "Sequence[tuple[WebhookRegistration, RegistrationUpdate]]") -> str:
    hosts = Counter(update.foreign_host for _, update in results if update.foreign_host is not None)
    return ", ".join(f"{host}: {count}" for host, count in hosts.most_common(5))
