import json
from pathlib import Path

import pytest

from simulations.bench import joint as bench

pytestmark = pytest.mark.soak


def test_the_file_has_both_ways_and_real_processes_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "folder" / "bench.json"
    bench.main(["--agents", "3", "--queries", "5", "--batches", "3", "--out", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["schema"], found["bar_ms"]) == ("collegium/bench-joint/v1", 150.0)
    assert [(row["way"], row["agents"], row["batches"]) for row in found["rows"]] == [
        ("local", 1, 3),
        ("ensemble", 3, 3),
    ]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in found["rows"])
    assert f"written: {out}" in capsys.readouterr().out
