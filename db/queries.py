"""Loads every statement of `db/queries/**/*.sql` into `sql.<name>`; builds no SQL itself.

A statement begins with `-- name: its_name`, followed by one `--` sentence that says what it does.
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("queries")


class Queries:
    """The statements by name; an unknown name is an `AttributeError` at first use."""

    def __init__(self, statements: dict[str, str]) -> None:
        self.statements: Final = statements

    def __getattr__(self, name: str) -> str:
        try:
            return self.statements[name]
        except KeyError:
            raise AttributeError(f"no statement named {name}") from None


def parse(text: str) -> dict[str, str]:
    """Return the statements of one file by name; the sentence stays with the statement as its comment."""
    statements: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        if name in statements:
            raise ValueError(f"two statements are named {name}")
        statements[name.strip()] = body.strip().rstrip(";")
    return statements


def load() -> Queries:
    """Return all statements; two files must not use the same name."""
    statements: dict[str, str] = {}
    for file in sorted(FOLDER.rglob("*.sql")):
        for name, statement in parse(file.read_text(encoding="utf-8")).items():
            if name in statements:
                raise ValueError(f"two statements are named {name}")
            statements[name] = statement
    return Queries(statements)


sql: Final = load()
