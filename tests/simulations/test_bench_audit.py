"""The rows of ``make bench``; and the issue's bars, over all seeds, in the soak run."""

import json
from pathlib import Path

import pytest

from simulations.bench import audit as bench


def test_every_path_has_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "folder" / "bench.json"
    bench.main(["--quick", "--out", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["schema"], found["quick"]) == ("collegium/bench-audit/v1", True)
    by_path = {name: [row["what"] for row in found["rows"] if row["path"] == name] for name in bench.SUBJECTS}
    assert len({tuple(rows) for rows in by_path.values()}) == 1
    assert len(found["rows"]) == len(by_path) * len(next(iter(by_path.values())))
    assert all(row["holds"] is None for row in found["rows"])  # 64 canaries say nothing
    printed = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in printed[:-1]] == found["rows"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", bench.SUBJECTS)
def test_the_issues_rows(name: str) -> None:
    """Formal epsilon 4.38 and 4,096 canaries: a correct path stays below, every broken copy is found out."""
    subject = bench.SUBJECTS[name]
    rows = bench.measure(name, subject, audits=subject.audits)
    assert [row for row in rows if row.holds is False] == []
    assert sum(row.holds is True for row in rows) == 9
