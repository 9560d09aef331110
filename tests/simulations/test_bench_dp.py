import json
from pathlib import Path

import pytest
import torch

from simulations.bench import dp as bench
from simulations.bench.dp import MODELS, Row, Trial

WAYS = [
    "not private",
    "clipped",
    "clipped, float noise",
    "clipped, exact noise",
    "clipped by Opacus' hooks",
    "integer path",
]


def test_the_file_has_every_way_and_quick_sizes_are_held_against_no_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folder" / "bench.json"
    bench.main(["--quick", "--out", str(out)])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["schema"], found["quick"], len(found["machine"]["load"])) == ("collegium/bench-dp/v1", True, 2)
    assert [(row["model"], row["way"]) for row in found["rows"]] == [(name, way) for name in MODELS for way in WAYS]
    for row in found["rows"]:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["holds"] is None
        assert (row["off_by"] is not None) == (row["way"] in ("clipped", "clipped by Opacus' hooks"))
    barred = {(row["model"], row["way"]): row["bar"] for row in found["rows"] if row["bar"] is not None}
    assert barred == bench.BARS
    assert f"written: {out}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "n_parameters"), [("MLP", 235_146), ("CNN", 11_274)])
def test_every_way_gives_the_mean_of_the_clipped_gradients(name: str, n_parameters: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trial = Trial.of(MODELS[name](), 16)
    assert trial._clipped().numel() == n_parameters
    for way in ("clipped", "clipped by Opacus' hooks"):
        assert 0 < (trial.off_by(way) or 0.0) <= 1e-6
    # What noise of deviation 1 in every entry of the sum does to its length.
    noise = n_parameters**0.5 / 16
    for noisy in (trial._noisy(), trial._exactly_noisy(), trial._by_integers()):
        assert float((noisy - trial._clipped()).norm()) == pytest.approx(noise, rel=0.05)


def test_a_row_holds_where_ratio_and_sum_are_right() -> None:
    good = Row("MLP", 64, "clipped", 1.6, 1.5, 1.9, 2.0, bar=1.7, off_by=3e-7)
    assert good.holds is True
    assert Row(**{**vars(good), "ratio": 1.71}).holds is False
    assert Row(**{**vars(good), "off_by": 2e-6}).holds is False
    assert Row(**{**vars(good), "bar": None}).holds is None
