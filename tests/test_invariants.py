"""The invariants of ARCHITECTURE.md that are about the code; the others are tested where they happen."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.queries import sql

ROOT = Path(__file__).parents[1]
SOURCES = {
    path: path.read_text()
    for room in ("db", "receiver")
    for path in (ROOT / room).rglob("*.py")
    if not any(path.is_relative_to(ROOT / "receiver" / other) for other in ("sandbox", "demo"))
}
"""The service; the sandbox is the other side of the wire, and the demo its user."""
PURE = [path for path in (ROOT / "statemachine").glob("*.py") if path.name != "diagram.py"]
PURE_IMPORTS = {"collections", "dataclasses", "datetime", "enum", "statemachine", "transitions", "typing"}
IMPURE_CALLS = {"now", "utcnow", "today", "open", "print", "input", "time", "monotonic", "uuid4"}
WRITTEN = re.compile(
    r"(?:insert into|update|delete from)\s+(zapwatch_states|zapwatch_events|whatsapp_connection_incidents)\b"
    r"|zapwatch_incidents_\w+\("
)
BESIDE_THE_STATE = {
    "channel_id", "tenant_id", "gateway_id", "memory",
    "due_at", "claimed_until", "probe_due_at", "probe_claimed_until",
}  # fmt: skip
"""Columns that claims, registration and adoption may write; `memory` only into a new row."""
HEALTH = re.compile(
    r"(?:insert into|update|delete from)\s+(?:zapwatch_gateway_incidents|zapwatch_affected_channels)\b"
    r"|update zapwatch_gateways\s+(?:g\s+)?set (?:state|tried_at|try_at)\b"
)
PRODUCT = [
    path
    for room in ("statemachine", "db", "receiver")
    for path in (ROOT / room).rglob("*.py")
    if not path.is_relative_to(ROOT / "receiver" / "sandbox")
]
"""All that is installed but the other side of the wire."""
WEBHOOK_PATH = [
    *(ROOT / "receiver" / "ingest").glob("*.py"),
    ROOT / "receiver" / "http" / "auth.py",
    *(ROOT / "receiver" / "providers").rglob("*.py"),
    *(ROOT / "db" / "ingest").glob("*.py"),
    ROOT / "db" / "connection" / "dataloader.py",
]
"""What a webhook passes through on its way into the database."""
UNTYPED = 4
"""How often the product says `Any`; each place says why."""
SLEEPS = 12
"""How often tests may sleep; each place says why no condition can be awaited instead."""
FORGETTING = {("db/history/retention.py", "forget_events")}
"""The one statement elsewhere that deletes events: those that a snapshot has taken in."""
CAUSES = {
    ("db/reconcile/gateways/causes.py", name)
    for name in ("attribute_causes", "drop_causes", "drop_causes_of_moved")
}
"""The statements elsewhere that write incidents: the cause in their details, and nothing else."""


def imports(path: Path) -> Iterator[str]:
    """Yield the first names of all modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def uses(name: str, path: Path) -> list[int]:
    """Return the lines of a file that use a name, imports left out, quoted annotations not."""
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    lines = []
    while todo:
        for node in ast.walk(todo.pop()):
            if (isinstance(node, ast.Name) and node.id == name) or (
                isinstance(node, ast.Attribute) and node.attr == name
            ):
                lines.append(node.lineno)
            for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
                if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                    todo.append(ast.parse(annotation.value, mode="eval"))
    return lines


@pytest.mark.parametrize("path", WEBHOOK_PATH, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_untyped_on_the_way_of_a_webhook(path: Path) -> None:
    assert uses("Any", path) == []


def test_product_is_typed_but_for_a_few_places_and_nothing_is_cast() -> None:
    untyped = {str(path.relative_to(ROOT)): lines for path in PRODUCT if (lines := uses("Any", path))}
    cast = {str(path.relative_to(ROOT)) for path in PRODUCT if uses("cast", path)}
    ignored = {str(path.relative_to(ROOT)) for path in PRODUCT if "# type: ignore" in path.read_text()}

    assert sum(map(len, untyped.values())) <= UNTYPED, untyped
    assert cast == set()
    assert ignored == {"receiver/http/connection.py"}


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_machine_imports_nothing_that_reaches_out_and_reads_no_clock(path: Path) -> None:
    calls = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }

    assert set(imports(path)) <= PURE_IMPORTS
    assert not calls & IMPURE_CALLS


def test_only_apply_uses_statements_that_write_state_events_or_incidents() -> None:
    writing = {name for name, statement in sql.statements.items() if WRITTEN.search(statement)}

    elsewhere = {
        (str(path.relative_to(ROOT)), name)
        for path, text in SOURCES.items()
        for name in re.findall(r"\bsql\.(\w+)", text)
        if name in writing and path != ROOT / "db/ingest/apply.py"
    }

    assert {"save_states", "insert_events", "open_incidents", "acknowledge_incident"} <= writing
    assert elsewhere >= FORGETTING | CAUSES
    assert WRITTEN.findall(sql.statements["forget_events"]) == ["zapwatch_events"]
    for _, name in CAUSES:
        statement = sql.statements[name]
        assert re.findall(r"\bset\s+(\w+)\s*=", statement) == ["details"], name
    for _, name in elsewhere - FORGETTING - CAUSES:
        statement = sql.statements[name]
        assert WRITTEN.findall(statement) == ["zapwatch_states"], name
        written = re.findall(r"(?:set|,)\s+(\w+)\s*=", statement) + [
            column.strip()
            for columns in re.findall(r"insert into zapwatch_states\s*\(([^)]*)\)", statement)
            for column in columns.split(",")
        ]
        assert written, name
        assert set(written) <= BESIDE_THE_STATE, name


def test_only_gateway_health_uses_statements_that_write_gateways_health_or_incidents() -> None:
    writing = {name for name, statement in sql.statements.items() if HEALTH.search(statement)}

    using = {
        str(path.relative_to(ROOT))
        for path, text in SOURCES.items()
        if writing.intersection(re.findall(r"\bsql\.(\w+)", text))
    }

    assert {"save_gateway_health", "open_gateway_incident", "note_trial", "end_recovery_probe"} <= writing
    assert using == {"db/reconcile/gateway_health.py", "db/reconcile/gateways/verdicts.py"}


@pytest.mark.parametrize("provider", ["evolution", "wapi", "twilio", "waha"])
def test_no_provider_is_named_outside_its_file_and_the_registry(provider: str) -> None:
    named = {
        str(path.relative_to(ROOT))
        for path, text in SOURCES.items()
        if re.search(rf"\b(import .*{provider}|{provider.title()}\(\))", text)
    }

    assert named <= {"receiver/providers/__init__.py"}


@pytest.mark.parametrize("notifier", ["webhook", "email", "slack", "telegram"])
def test_no_notifier_is_named_outside_its_file_and_the_registry(notifier: str) -> None:
    named = {
        str(path.relative_to(ROOT))
        for path, text in SOURCES.items()
        if re.search(
            rf"notifiers\.{notifier}\b|notifiers import .*\b{notifier}\b|\b{notifier.title()}Notifier\b", text
        )
    }

    assert named <= {"receiver/alerts/notifiers/__init__.py", f"receiver/alerts/notifiers/{notifier}.py"}


def test_only_one_module_imports_httpx() -> None:
    importing = {
        str(path.relative_to(ROOT))
        for path, text in SOURCES.items()
        if re.search(r"^\s*(import|from) httpx", text, re.M)
    }

    assert importing == {"receiver/outbound/client.py"}


def test_tests_sleep_seldom_and_say_why() -> None:
    sleeps = [
        line.strip()
        for path in (ROOT / "tests").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\b(?:asyncio|anyio|time)\.sleep\(", line)
    ]

    assert len(sleeps) <= SLEEPS
    assert [line for line in sleeps if "  # " not in line] == []
