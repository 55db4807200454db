"""Documents that code and documents cite are in the repository, down to the section."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("statemachine", "db", "receiver", "bench", "faults", "tests")
SOURCES = [path for room in ROOMS for kind in ("*.py", "*.sql") for path in (ROOT / room).rglob(kind)]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
CITED = re.compile(r"\b((?:docs/(?:[\w-]+/)*[\w-]+|[A-Z]{3,})\.md)(?:#([\w-]+))?")
LINK = re.compile(r"\]\(([^)#]*)(?:#([\w-]+))?\)")


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document: those that it names, and those of its headings."""
    text = path.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([\w-]+)">', text))


def leads_nowhere(target: Path, anchor: str | None) -> bool:
    """True when there is no such file, or no such section in it."""
    return not target.exists() or (anchor is not None and anchor not in anchors(target))


def test_documents_that_code_cites_are_there() -> None:
    missing = {
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in SOURCES
        for found in CITED.finditer(path.read_text())
        if leads_nowhere(ROOT / found[1], found[2])
    }

    assert missing == set()


def test_links_of_documents_lead_somewhere() -> None:
    missing = {
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in DOCUMENTS
        for found in LINK.finditer(path.read_text())
        if "://" not in found[1] and leads_nowhere(path.parent / found[1] if found[1] else path, found[2])
    }

    assert missing == set()


def test_modules_that_documents_name_are_there() -> None:
    # Capitals stand for a name to be chosen; 0008 names what it decided against.
    named = re.compile(r"`((?:statemachine|db|receiver|tests|bench|faults)/[a-z0-9_/.-]+\.(?:py|sql))`")
    missing = {
        f"{path.relative_to(ROOT)}: {found[1]}"
        for path in DOCUMENTS
        for found in named.finditer(path.read_text())
        if not (ROOT / found[1]).exists() and found[1] != "db/queries.sql"
    }

    assert missing == set()
