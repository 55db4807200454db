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


@pytest.mark.parametrize("name", sorted(sql.statements))
def test_no_plan_makes_a_bound_claim_more(name: str) -> None:
    """A plan may run a subselect once for each row outside, and with SKIP LOCKED each run finds other rows.

    `= any (array(select …))` is run once, and so is a common table expression that locks.
    """
    bounded = r"\bin \(\s*select(?:[^()]|\([^()]*\))*\blimit\b(?:[^()]|\([^()]*\))*\bskip locked"
    assert not re.search(bounded, sql.statements[name])


def test_two_statements_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two statements are named twice"):
        parse("-- name: twice\nselect 1;\n-- name: twice\nselect 2;")
