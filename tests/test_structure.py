"""The house: one class for one name, folders that a reader surveys, and a glossary that names what exists."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("statemachine", "db", "receiver")
PLUG_INS = {"receiver/providers", "receiver/alerts/notifiers"}
"""Folders that hold one entry for each kind of gateway or destination."""
ONLY_GROWS = {"db/migrations"}
"""A landed migration is never moved."""
MOST_LOOSE = 10


def modules() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def classes() -> dict[str, list[str]]:
    """Return the files that define each class name; a leading underscore makes no other name."""
    found = defaultdict(list)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(str(path.relative_to(ROOT)))
    return found


def test_no_class_name_is_defined_twice() -> None:
    twice = {name: paths for name, paths in classes().items() if len(paths) > 1}

    assert twice == {}


def test_no_folder_holds_more_loose_files_than_a_reader_surveys() -> None:
    loose = Counter[str]()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.suffix in {".py", ".sql"} and path.name != "__init__.py":
                loose[str(path.parent.relative_to(ROOT))] += 1

    crowded = {folder: count for folder, count in loose.items() if count > MOST_LOOSE}

    assert crowded.keys() <= PLUG_INS | ONLY_GROWS


def test_glossary_names_classes_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    glossary = text.partition("## Glossary")[2].partition("\n## ")[0]
    named = re.findall(r"`([A-Z][a-z]\w*)`", glossary)
    aliases = {
        alias
        for path in modules()
        for alias in re.findall(
            r"^([A-Z][a-z]\w*)(?:: TypeAlias)? = ", path.read_text(encoding="utf-8"), re.M
        )
    }

    assert len(named) >= 25
    assert set(named) <= classes().keys() | aliases
