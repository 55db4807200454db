"""Every statement is used, and the rooms' files name what they may."""

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


def test_only_apply_uses_the_statements_that_change_state_events_and_incidents() -> None:
    written = re.compile(
        r"(insert into|update|delete from)\s+(zapwatch_states|zapwatch_events|whatsapp_connection)"
    )
    allowed = {"apply.sql", "claims.sql", "registry.sql"}

    writing = {file.name for file in (ROOT / "db/queries").glob("*.sql") if written.search(file.read_text())}

    assert writing <= allowed
    registry = (ROOT / "db/queries/registry.sql").read_text()
    for statement in written.findall(registry):
        assert statement[1] == "zapwatch_states"
    assert not re.search(r"set[^;]*\b(state|reason|version|memory)\s*=", registry)


@pytest.mark.parametrize("provider", ["evolution", "wapi", "twilio", "waha"])
def test_no_provider_is_named_outside_its_file_and_the_registry(provider: str) -> None:
    named = {
        str(path.relative_to(ROOT))
        for path, text in SOURCES.items()
        if re.search(rf"\b(import .*{provider}|{provider.title()}\(\))", text)
    }

    assert named <= {"receiver/providers/__init__.py"}


def test_only_one_module_imports_httpx() -> None:
    importing = {
        path.name for path, text in SOURCES.items() if re.search(r"^\s*(import|from) httpx", text, re.M)
    }

    assert importing == {"client.py"}
