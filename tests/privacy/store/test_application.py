"""The digest of what is installed: the same as ``sha256sum`` says, and another one for every other file."""

import subprocess
import sys
from pathlib import Path

import pytest

from privacy.errors import ConfigError
from privacy.store.application import application_digest


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two small packages, under names that no other test has."""
    names = (f"one_{tmp_path.name.replace('-', '_')}", f"two_{tmp_path.name.replace('-', '_')}")
    for name in names:
        (tmp_path / name / "deep").mkdir(parents=True)
        for file in ("__init__.py", "deep/a.py", "deep/b.toml", "c.json", "d.cedar", "e.cedarschema"):
            (tmp_path / name / file).write_text(f"raise SystemError  # {file}", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return names


def fresh(packages: tuple[str, ...]) -> str:
    application_digest.cache_clear()
    return application_digest(packages)


def test_sha256sum_agrees(tmp_path: Path, pair: tuple[str, str]) -> None:
    for other in ("note.txt", "py.typed", "deep/a.pyc"):
        (tmp_path / pair[0] / other).write_bytes(b"not counted")
    command = (
        r"find . -type f \( -name '*.py' -o -name '*.toml' -o -name '*.json' -o -name '*.cedar*' \) |"
        " cut -c3- | LC_ALL=C sort | xargs sha256sum | sha256sum"
    )
    told = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert fresh(pair) == told.stdout.split()[0]
    assert fresh(pair[::-1]) == fresh(pair)
    assert not set(pair) & set(sys.modules)


@pytest.mark.parametrize("file", ["__init__.py", "deep/a.py", "deep/b.toml", "c.json", "d.cedar", "e.cedarschema"])
def test_every_file_counts(tmp_path: Path, pair: tuple[str, str], file: str) -> None:
    before = fresh(pair)
    path = tmp_path / pair[1] / file
    path.write_bytes(path.read_bytes() + b" ")
    changed = fresh(pair)
    path.rename(path.with_stem("moved"))
    moved = fresh(pair) if file != "__init__.py" else ""
    assert len({before, changed, moved}) == 3


def test_a_file_that_was_added_counts(tmp_path: Path, pair: tuple[str, str]) -> None:
    before = fresh(pair)
    (tmp_path / pair[0] / "deep" / "evil.py").touch()
    assert fresh(pair) != before


def test_it_is_taken_once_in_a_process(tmp_path: Path, pair: tuple[str, str]) -> None:
    before = fresh(pair)
    (tmp_path / pair[0] / "late.py").touch()
    assert application_digest(pair) == before  # what runs is what was there when the process began


def test_what_cannot_be_hashed_is_told(tmp_path: Path, pair: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="nowhere_at_all is not installed"):
        fresh(("nowhere_at_all",))
    (tmp_path / pair[0] / "a\n.py").touch()
    with pytest.raises(ConfigError, match="no name of a file of ours") as info:
        fresh(pair)
    assert all(line.isprintable() for line in info.value.lines())
