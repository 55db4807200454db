"""`zapwatch import` and `zapwatch webhooks restore`: hosts in one command, and their webhooks."""

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
    """What is to be imported, and how."""

    provider: str
    url: str | None
    api_key: str
    tenant_id: UUID | None
    set_webhooks: bool
    traffic: bool
    replace: bool


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
    "--tenant", "tenant_id", type=click.UUID, help="whose new channels are; without it: `default`'s"
)
@click.option(
    "--set-webhooks", is_flag=True, help="puts our address where the instances' webhooks go, if free"
)
@click.option("--traffic", is_flag=True, help="with it: messages are told, too, as proof of life")
@click.option(
    "--replace-webhooks", "replace", is_flag=True, help="with it: takes other systems' places; asks first"
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
    **options: str | None,
) -> None:
    """Register a gateway of PROVIDER (evolution_api, ...) and every instance on it.

    Once more changes nothing but adds what is new. The running service probes the channels.
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
    wish = _ImportRequest(provider, url, api_key, tenant_id, set_webhooks, traffic, replace)
    try:
        run(_import(settings, wish))
    except (AddressError, NotListed) as reason:
        raise click.ClickException(str(reason)) from None
    except UnknownTenant:
        raise click.ClickException("There is no such tenant.") from None


@click.group()
def webhooks() -> None:
    """Where gateways send their webhooks."""


@webhooks.command()
@click.option("--gateway", "gateway_id", type=click.UUID, help="only the channels of this gateway")
@settings_options("database_url", "data_dir", "secret_keys", "host", "port", "public_url")
def restore(gateway_id: UUID | None, **options: str | None) -> None:
    """Put back what other systems had in the places that --replace-webhooks took."""

    async def work() -> tuple[int, int]:
        from db.reconcile.webhook_registrations import replaced_registrations

        async with _tools(settings_of(options)) as tools:
            async with tools.pool.acquire() as connection:
                places = await replaced_registrations(connection, gateway_id)
            bar = tools.progress.add_task("Putting back", total=len(places))
            done = 0
            for place in places:
                done += await tools.webhook_registrar.put_back(place)
                tools.progress.advance(bar)
            return done, len(places)

    done, wanted = run(work())
    click.echo(f"{done} of {wanted} channels have what they had before.")
    if done < wanted:
        raise SystemExit(1)


@asynccontextmanager
async def _tools(settings: Settings) -> AsyncIterator[_ImportServices]:
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


async def _import(settings: Settings, wish: _ImportRequest) -> None:
    from db.registry.address import normalise
    from receiver.provisioning.instances import list_instances

    base_url = normalise(wish.provider, wish.url)
    if not base_url:
        raise click.UsageError("Give the gateway's address: --url.")
    async with _tools(settings) as tools:
        bar = tools.progress.add_task("Asking the gateway", total=None)
        listed = await list_instances(tools.client, wish.provider, base_url, wish.api_key)
        tools.progress.update(bar, description="Registering channels", total=len(listed))
        gateway_id, new, token = await _register(tools, wish, base_url, listed, bar)
        click.echo(
            f"{len(listed)} instances are there: {new} new channels, {len(listed) - new} known before."
        )
        if wish.set_webhooks:
            await _set_webhooks(tools, wish, gateway_id)
        elif token is not None:
            address = f"{settings.base_url}/webhooks/{wish.provider}/{token}"
            click.echo(f"Webhook address of the gateway, shown once: {address}")


async def _register(
    tools: _ImportServices,
    wish: _ImportRequest,
    base_url: str,
    listed: "Sequence[ListedInstance]",
    bar: TaskID,
) -> tuple[UUID, int, str | None]:
    from db.connection.invalidation import notify
    from db.registry.gateways import ensure_gateway
    from receiver.providers import MANAGED
    from receiver.provisioning.instances import register

    vault = vault_of(tools.settings)
    key = wish.api_key if MANAGED[wish.provider].one_key_for_all else None
    async with tools.pool.acquire() as connection:
        gateway_id, token = await ensure_gateway(connection, vault, wish.provider, base_url, key)
    new = await register(
        tools.pool,
        vault,
        wish.provider,
        gateway_id,
        wish.tenant_id,
        listed,
        lambda done: tools.progress.update(bar, completed=done),
    )
    if new:
        # An instance may be another channel than before, whose old one another application deleted.
        async with tools.pool.acquire() as connection:
            await notify(connection, gateway_id)
    return gateway_id, new, token


async def _set_webhooks(tools: _ImportServices, wish: _ImportRequest, gateway_id: UUID) -> None:
    from db.reconcile.webhook_registrations import RegistrationState, registrations_of

    async with tools.pool.acquire() as connection:
        places = await registrations_of(connection, gateway_id)
    filled = await _fill(tools, places, wish.traffic, replace=False)
    foreign = [place for place, found in filled if found.state is RegistrationState.FOREIGN]
    if foreign and wish.replace and _may_replace(tools, filled):
        filled = [one for one in filled if one[1].state is not RegistrationState.FOREIGN]
        filled += await _fill(tools, foreign, wish.traffic, replace=True)
    counts = Counter(found.state for _, found in filled)
    ours, failed = counts[RegistrationState.SET], counts[RegistrationState.FAILED]
    click.echo(f"Channels whose webhooks come here: {ours}; not saved: {failed}.")
    if others := counts[RegistrationState.FOREIGN]:
        click.echo(
            f"Left to another system ({_hosts(filled)}): {others}. Probing finds their"
            " losses. The gateway's own address, for its global webhook if that is free:"
            f" {await tools.webhook_registrar.address(gateway_id, wish.provider)}"
        )


async def _fill(
    tools: _ImportServices, places: "Sequence[WebhookRegistration]", traffic: bool, replace: bool
) -> "list[tuple[WebhookRegistration, RegistrationUpdate]]":
    from receiver.provisioning.webhook_registration import fill_all

    bar = tools.progress.add_task("Setting webhooks", total=len(places))
    return await fill_all(
        tools.webhook_registrar, places, traffic, replace, lambda: tools.progress.advance(bar)
    )


def _may_replace(
    tools: _ImportServices, filled: "Sequence[tuple[WebhookRegistration, RegistrationUpdate]]"
) -> bool:
    tools.progress.stop()
    hosts = _hosts(filled)
    return click.confirm(
        f"Other systems stop hearing of these channels: {hosts}. `zapwatch webhooks restore` puts them back."
        " Replace their addresses?"
    )


def _hosts(filled: "Sequence[tuple[WebhookRegistration, RegistrationUpdate]]") -> str:
    hosts = Counter(found.foreign_host for _, found in filled if found.foreign_host is not None)
    return ", ".join(f"{host}: {count}" for host, count in hosts.most_common(5))
