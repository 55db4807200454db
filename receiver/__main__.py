"""`python -m receiver` and the command `zapwatch`."""

from receiver.cli import cli


def main() -> None:
    """Run the command line."""
    cli(prog_name="zapwatch")


if __name__ == "__main__":
    main()
