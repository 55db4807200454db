"""The commands: `zapwatch serve | demo | migrate | import | check | doctor | channels | incidents | token`.

A module for each group of commands. Except for `serve` and `demo` they talk to the database themselves, and
need no running service. What is slow to import and not needed by all, a command imports when it runs.
"""

import click

from receiver.cli.health import doctor
from receiver.cli.imports import import_, webhooks
from receiver.cli.lists import channels, incidents
from receiver.cli.probes import check
from receiver.cli.service import demo, migrate, serve
from receiver.cli.tokens import token


@click.group()
@click.version_option(package_name="zapwatch")
def cli() -> None:
    """Watches fleets of WhatsApp channels."""


for command in (serve, migrate, import_, webhooks, channels, incidents, check, doctor, demo, token):
    cli.add_command(command)
