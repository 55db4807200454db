"""`zapwatch doctor`: prints what `receiver.doctor` finds."""

import sys

import click
from rich.console import Console

from receiver.cli.command import open_database, run, settings_of, settings_options
from receiver.cli.table import print_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
@settings_options(
    "database_url", "data_dir", "host", "port", "public_url", "secret_keys", "stale_after", "probe_timeout",
    "events_keep_days",
)  # fmt: skip
def doctor(as_json: bool, **options: str | None) -> None:
    """Say what is wrong with this installation, and what to do; change nothing.

    It exits with 1 if there is a problem, with 0 if there are only notes.
    """
    settings = settings_of(options)
    from receiver.doctor import examine

    examination = run(examine(settings, open_database))
    if as_json:
        print_json(examination.findings)
    else:
        examination.print(Console(markup=False, emoji=False, highlight=False))
    sys.exit(0 if examination.healthy else 1)
