"""`zapwatch check`: probes one channel, or all of them, now."""

import sys
from typing import TYPE_CHECKING
from uuid import UUID

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from receiver.cli.command import open_database, run, settings_of, settings_options, vault_of
from receiver.settings import Settings

if TYPE_CHECKING:
    from db.reconcile.check_jobs import Check


@click.command()
@click.argument("channel", required=False, type=click.UUID)
@settings_options(
    "database_url", "data_dir", "secret_keys", "stale_after", "retry_after", "terminal_grace", "probe_timeout"
)
def check(channel: UUID | None, **options: str | None) -> None:
    """Probe one channel, or all of them, now.

    One answer still needs others like it before it changes much: run it again, or let the service go on.
    Give it the settings of the service.
    """
    settings = settings_of(options)
    if channel is None:
        _check_all(settings)
    else:
        _check_channel(settings, channel)


def _check_channel(settings: Settings, channel: UUID) -> None:
    from receiver.cli.check_runner import check_channel
    from receiver.outbound.credentials import Unaskable
    from receiver.reconcile.probe import ProbeResult

    async def work() -> ProbeResult | None:
        async with open_database(settings) as dsn:
            return await check_channel(dsn, vault_of(settings), settings, channel)

    try:
        probed = run(work())
    except Unaskable as reason:
        raise click.ClickException(f"The channel can't be probed: {reason}.") from None
    if probed is None:
        raise click.ClickException("There is no such channel.")
    status = "no answer" if probed.http_status is None else f"HTTP {probed.http_status}"
    click.echo(f"{probed.outcome} ({status}, {probed.took.total_seconds() * 1000:.0f} ms)")


def _check_all(settings: Settings) -> None:
    from receiver.cli.check_runner import check_all

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("Probing channels", total=None)

        async def work() -> "Check":
            async with open_database(settings) as dsn:
                return await check_all(
                    dsn,
                    vault_of(settings),
                    settings,
                    lambda check: progress.update(bar, total=check.total, completed=check.done),
                )

        check = run(work())
    click.echo(f"{check.done} of {check.total} channels were probed; see `zapwatch channels`.")
    if check.done < check.total:
        sys.exit(1)
