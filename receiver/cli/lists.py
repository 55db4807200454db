"""`zapwatch channels` and `incidents`: tables of what the database holds; they change nothing."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import click
from rich.table import Table

from db.connection.types import Pool
from db.reads.channels import ChannelFilter, list_channels
from db.reads.incidents import IncidentFilter, list_incidents
from receiver.api import views
from receiver.api.channels.channels import SHOWN_STATES
from receiver.cli.command import run, settings_of, settings_options, with_pool
from receiver.cli.table import add_row, print_json, print_table

PAGE: Final = 500


@click.command()
@click.option("--state", "states", type=click.Choice(SHOWN_STATES), multiple=True, help="only these states")
@click.option("--down", is_flag=True, help="only watched channels that were connected before and are not now")
@click.option("--tenant", "tenant_id", type=click.UUID, help="only channels of this tenant")
@click.option("--json", "as_json", is_flag=True, help="print JSON, as the API gives it")
@settings_options("database_url", "data_dir")
def channels(
    states: tuple[str, ...], down: bool, tenant_id: UUID | None, as_json: bool, **options: str | None
) -> None:
    """Show the channels and their states."""
    wanted = ChannelFilter(states=states or None, down=down, tenant_id=tenant_id)

    async def work(pool: Pool) -> list[dict[str, object]]:
        shown: list[dict[str, object]] = []
        after = None
        while rows := await list_channels(pool, None, wanted, after, PAGE):
            shown += [views.channel_in_list(row) for row in rows]
            after = rows[-1].row["channel_id"]
        return shown

    shown = run(with_pool(settings_of(options), work))
    if as_json:
        print_json(shown)
        return
    table = Table("Channel", "Name", "Instance", "Provider", "State", "Since (UTC)", "Reason", "Incident")
    for item in sorted(shown, key=lambda item: (item["name"] or "", item["instance"] or "")):
        reason, incident = _part(item["reason"]), _part(item["incident"])
        add_row(
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
    print_table(table)


def _part(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


@click.command()
@click.option("--status", type=click.Choice(("open", "resolved", "all")), default="all", show_default=True)
@click.option("--tenant", "tenant_id", type=click.UUID, help="only incidents of this tenant")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print JSON, as the API gives it")
@settings_options("database_url", "data_dir")
def incidents(status: str, tenant_id: UUID | None, limit: int, as_json: bool, **options: str | None) -> None:
    """Show incidents of channels and gateways, newest first; with a tenant, those of its channels."""
    wanted = IncidentFilter(open={"open": True, "resolved": False}.get(status), tenant_id=tenant_id)

    async def work(pool: Pool) -> list[dict[str, object]]:
        return [views.incident(row) for row in await list_incidents(pool, None, wanted, None, limit)]

    shown = run(with_pool(settings_of(options), work))
    if as_json:
        print_json(shown)
        return
    times = ("started_at", "resolved_at", "duration_seconds")
    table = Table("Incident", "Of", "Id", "Provider", "Kind", "Started (UTC)", "Resolved (UTC)", "Seconds")
    for item in shown:
        about = item["channel_id"] or item["gateway_id"]
        columns = (item[column] for column in ("provider", "kind", *times))
        add_row(table, item["id"], item["subject"], about, *columns)
    print_table(table)
