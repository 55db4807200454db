"""`zapwatch token create`: tokens of operators, and webhook addresses."""

from uuid import UUID

import click

from db.connection.invalidation import notify
from db.connection.types import Connection
from db.registry.tenants import tenant_exists
from db.registry.tokens import create_channel_token, create_gateway_token, create_operator_token, provider_of
from receiver.cli.command import run, settings_of, settings_options, with_connection


@click.group()
def token() -> None:
    """Tokens of operators, channels and gateways."""


@token.command()
@click.option("--name", help="whose it is, for an operator's token")
@click.option("--tenant", "tenant_id", type=click.UUID, help="limits an operator's token to this tenant")
@click.option("--channel", "channel_id", type=click.UUID, help="makes a new webhook address of this channel")
@click.option("--gateway", "gateway_id", type=click.UUID, help="makes a new webhook address of this gateway")
@click.option("--revoke-others", is_flag=True, help="ends the other webhook addresses")
@settings_options("database_url", "data_dir", "host", "port", "public_url")
def create(
    name: str | None,
    tenant_id: UUID | None,
    channel_id: UUID | None,
    gateway_id: UUID | None,
    revoke_others: bool,
    **options: str | None,
) -> None:
    """Make a token; it is printed now and never again."""
    given = [item for item in (tenant_id or name, channel_id, gateway_id) if item is not None]
    if len(given) > 1:
        raise click.UsageError("Give --channel, --gateway, or --name and --tenant.")
    if revoke_others and channel_id is None and gateway_id is None:
        raise click.UsageError("--revoke-others goes with --channel or --gateway.")
    settings = settings_of(options)

    async def work(connection: Connection) -> str | None:
        if channel_id is None and gateway_id is None:
            return await _operator_token(connection, name, tenant_id)
        return await _webhook_address(connection, settings.base_url, channel_id, gateway_id, revoke_others)

    made = run(with_connection(settings, work))
    if made is None:
        raise click.ClickException("There is nothing with this id.")
    click.echo(made)


async def _operator_token(connection: Connection, name: str | None, tenant_id: UUID | None) -> str | None:
    if tenant_id is not None and not await tenant_exists(connection, tenant_id):
        return None
    return await create_operator_token(connection, name, tenant_id)


async def _webhook_address(
    connection: Connection, base: str, channel_id: UUID | None, gateway_id: UUID | None, revoke_others: bool
) -> str | None:
    provider = await provider_of(connection, channel_id, gateway_id)
    if provider is None:
        return None
    if channel_id is not None:
        made = await create_channel_token(connection, channel_id, revoke_others=revoke_others)
    else:
        assert gateway_id is not None
        made = await create_gateway_token(connection, gateway_id, revoke_others=revoke_others)
    if revoke_others:
        for identity in filter(None, (channel_id, gateway_id)):
            await notify(connection, identity)
    return f"{base}/webhooks/{provider}/{made}"
