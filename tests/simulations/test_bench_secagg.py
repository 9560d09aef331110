import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.errors import LocalProtocolError
from privacy.secagg import coordinator
from privacy.secagg.effects import Effect, Finished, ProtocolEvent
from simulations.bench import attempt, flower, secagg
from simulations.bench.attempt import Attempt
from simulations.bench.flower import Graph

ROWS = ["client stage", "masks", "shares", "recovery", "recovery", "upload", "client", "server", "server memory"]


def test_the_file_has_every_figure_and_quick_sizes_are_held_against_no_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folder" / "bench.json"
    secagg.main(["--quick", "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert set(found) == {"schema", "quick", "machine", "rows"}
    assert (found["schema"], found["quick"]) == ("collegium/bench-secagg/v1", True)
    assert len(found["machine"]["load"]) == 2
    assert found["machine"]["keystream"] == attempt.KEYSTREAM
    assert [row["what"].split(",")[0] for row in found["rows"]] == ROWS
    assert f"{attempt.KEYSTREAM} in use" in found["rows"][1]["what"]
    assert set(found["rows"][1]["detail"]) == {"turns", "in_use_gb_per_s", "other_gb_per_s", "masks_gb_per_s"}
    for row in found["rows"]:
        assert set(row) == {"what", "found", "unit", "bar", "at_least", "low", "high", "detail", "holds"}
        assert row["found"] > 0
        assert row["low"] <= row["high"]
        assert row["holds"] is None
    assert f"written: {out}" in capsys.readouterr().out


@pytest.mark.parametrize("bits", [32, 64])
def test_an_attempt_weighs_every_party_and_gives_the_survivors_sum(bits: int) -> None:
    done = Attempt(6, 1000, bits, lost=1).run()
    assert done.finished.survivors == attempt.site_ids(5)
    assert all(size > 1000 * bits // 8 for site, size in done.sent.items() if site in done.finished.survivors)
    assert done.sent["site-005"] < 1000 * bits // 8  # it vanished before MSK


def test_a_wrong_sum_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = coordinator.step

    def off_by_one(
        config: coordinator.CoordinatorConfig, state: coordinator.CoordinatorState, event: ProtocolEvent
    ) -> tuple[coordinator.CoordinatorState, tuple[Effect, ...]]:
        after, effects = honest(config, state, event)
        return after, tuple(
            replace(e, sums={k: v + 1 for k, v in e.sums.items()}) if isinstance(e, Finished) else e for e in effects
        )

    monkeypatch.setattr(coordinator, "step", off_by_one)
    with pytest.raises(LocalProtocolError, match="not that of the survivors"):
        Attempt(4, 50, 32).run()


@pytest.mark.parametrize(("k", "one_in"), [(4, 1), (10, 1), (10, 5)])
def test_both_recoveries_give_the_exact_sum_on_the_same_graph(k: int, one_in: int) -> None:
    graph = Graph.ring(11, k, one_in)
    assert all(len(sites) == k + 1 and i in sites for i, sites in enumerate(graph.neighbours))
    total = np.random.default_rng(1).integers(0, 2**32, 100)
    assert np.array_equal(flower.recovery(graph, total)(), total)
    assert secagg.recovery(graph, 100, 1).detail["exact"] is True


def test_both_sides_round_to_the_same_grid() -> None:
    update = np.array([-9.0, -8.0, -0.25, 0.0, 0.5, 8.0, 9.0], dtype=np.float32)
    units = [-(2**21), -(2**21), -(2**16), 0, 2**17, 2**21, 2**21]
    (theirs,) = flower.rounded(update.copy())
    assert [int(value) - 2**21 for value in theirs] == units
    assert list(attempt.rounded(update)) == units


def test_both_sides_round_up_as_often_as_the_fraction_says() -> None:
    update = np.full(40_000, 2.0**-20, dtype=np.float32)  # a quarter of a step
    (theirs,) = flower.rounded(update.copy())
    for units in (theirs - 2**21, attempt.rounded(update)):
        assert set(np.unique(units)) == {0, 1}
        assert float(units.mean()) == pytest.approx(0.25, abs=0.015)  # seven standard deviations
