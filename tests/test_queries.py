"""Every statement is used, and no two share a name; that they can be prepared is tested beside `apply`."""

import re
from pathlib import Path

import pytest

from db.queries import parse, sql

ROOT = Path(__file__).parents[1]
SOURCES = {path: path.read_text() for room in ("db", "receiver") for path in (ROOT / room).rglob("*.py")}


@pytest.mark.parametrize("name", sorted(sql.statements))
def test_statement_is_used(name: str) -> None:
    assert any(re.search(rf"\bsql\.{name}\b", text) for text in SOURCES.values())


def test_two_statements_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two statements are named twice"):
        parse("-- name: twice\nselect 1;\n-- name: twice\nselect 2;")
