import json
from pathlib import Path

import pytest

from simulations.bench import noise as bench


def test_every_sampler_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "folder" / "bench.json"
    bench.main(["--quick", "--out", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["schema"], found["quick"]) == ("collegium/bench-noise/v1", True)
    kinds = [row["what"].split(",")[0] for row in found["rows"]]
    assert (kinds.count("exact rounded Gaussian"), kinds.count("exact Skellam")) == (5, 3)
    assert {"float64 rounded Gaussian", "keystream alone"} < set(kinds)
    for row in found["rows"]:
        assert row["turns_from_to"][0] <= row["cpu_s"] <= row["turns_from_to"][1]
        assert (row["bar_s"] == 1.0) == row["what"].startswith("exact")
    printed = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in printed[:-1]] == found["rows"]
