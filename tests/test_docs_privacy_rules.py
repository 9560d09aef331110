"""The rules that the privacy code cites by number exist, and the files that they name do."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "privacy-rules.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.*) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
_CITED = re.compile(r"docs/privacy-rules\.md, (\d+)(?: to (\d+))?")


def cited() -> set[int]:
    found = set()
    for package in ("privacy", "strategies", "server", "clients", "simulations", "tests"):
        for path in (ROOT / package).rglob("*.py"):
            for first, last in _CITED.findall(path.read_text(encoding="utf-8")):
                found |= set(range(int(first), int(last or first) + 1))
    return found


def test_rules_are_numbered_and_every_number_cited_is_one() -> None:
    assert [int(row[0]) for row in ROWS] == [*range(1, len(ROWS) + 1)]
    assert len(cited()) > 8
    assert cited() <= {int(row[0]) for row in ROWS}


def test_every_file_to_check_exists() -> None:
    for number, _, _, check in ROWS:
        files = re.findall(r"`([^`]+\.py)`", check)
        assert files, number
        assert all((ROOT / file).is_file() for file in files), number
