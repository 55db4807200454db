"""`zapwatch serve`, `migrate` and `demo`: the service, what it needs, and a look at it."""

import os
import sys
from typing import Final

import click

from db.embedded.server import EmbeddedError
from db.migrate import migrate as apply_migrations
from receiver.cli.command import run, settings_of, settings_options, with_connection
from receiver.settings import FILE_SUFFIX, variable

HEEDED: Final = ("host", "port", "log_format")
"""All settings that mean something to the demo; wrong others are no reason not to run."""
OWN_DATABASE: Final = variable("database_url")


@click.command()
@settings_options()
def serve(**options: str | None) -> None:
    """Run the service."""
    settings = settings_of(options)
    # Not needed by the other commands, and slow to import.
    from receiver.service.server import serve as serve_app

    sys.exit(serve_app(settings))


@click.command()
@settings_options("database_url", "data_dir")
def migrate(**options: str | None) -> None:
    """Apply migrations and print what was applied."""
    names = run(with_connection(settings_of(options), apply_migrations))
    click.echo("\n".join(names) if names else "up to date")


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), help="end by itself after so long")
@settings_options(*HEEDED)
def demo(seconds: float | None, **options: str | None) -> None:
    """Run the service beside gateways that misbehave; nothing of it is real, or lasts."""
    heeded = {variable(name) + suffix for name in HEEDED for suffix in ("", FILE_SUFFIX)}
    settings = settings_of(options, {name: value for name, value in os.environ.items() if name in heeded})
    import uvloop

    from receiver.demo.show import show

    if any(os.environ.get(OWN_DATABASE + suffix) for suffix in ("", FILE_SUFFIX)):
        click.echo(f"{OWN_DATABASE} is left alone: the demo has a database of its own.")
    try:
        uvloop.run(show(settings, seconds, click.echo))
    except OSError as error:
        raise click.ClickException(f"The demo can't run: {error.strerror or error}.") from None
    except EmbeddedError as error:
        raise click.ClickException(f"{error} (The demo's folder is made in TMPDIR.)") from None
