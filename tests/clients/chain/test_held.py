"""What a holder keeps from round to round: the mean, which attempt counts, and what a killed process finds again."""

import secrets
from pathlib import Path

import numpy as np
import pytest

from clients.chain.held import Copy, Held, State, moved
from privacy.errors import ConfigError, SensitivityError
from strategies.contribution import Contribution
from strategies.fed_avg import FedAvg
from strategies.regions import HeldRegion
from strategies.secure_sum import to_aggregate, to_units
from strategies.task import SiteId


def state(value: float, count: int = 7) -> State:
    return {"w": np.full((2, 3), value, np.float32), "n": np.array(count)}


def value(found: State) -> float:
    assert found["w"].shape == (2, 3)
    return float(np.unique(found["w"]).item())


def done(site: str, at: float, *, attempt: int = 1, weight: int = 1) -> Copy:
    return Copy(attempt, weight, site, state(at))


def test_a_round_starts_at_the_weighted_mean_of_the_round_before() -> None:
    held = Held(state(0))
    held.finish(1, done("alba", 1, weight=3))
    held.finish(1, done("brno", 5))
    assert value(held.begin(1)) == 0
    assert value(held.begin(2)) == 2
    assert held.latest()[0] == 1


def test_the_mean_is_that_of_the_masked_sum_and_does_not_depend_on_who_came_first() -> None:
    drawn = np.random.default_rng(8)
    start = {"w": drawn.normal(size=99).astype(np.float32)}
    ends = [drawn.normal(size=99).astype(np.float32) for _ in range(3)]
    copies = [Copy(1, k, site, {"w": end}) for k, (site, end) in enumerate(zip("cab", ends, strict=True), 1)]
    found = moved(start, copies)["w"]
    weights = {SiteId(copy.site): float(copy.weight) for copy in copies}
    updates = [Contribution({"update": end - start["w"]}) for end in ends]
    units = [to_units(each, FedAvg.declared, 1, secrets.token_bytes)["update"] for each in updates]
    total = np.sum([copy.weight * each for copy, each in zip(copies, units, strict=True)], axis=0)
    region = HeldRegion(tuple(sorted(weights)), np.arange(99))
    mean = to_aggregate({0: total}, [region], FedAvg.declared, 99, weights).mean["update"]
    np.testing.assert_array_equal(found, start["w"].astype(np.float64) + mean)
    np.testing.assert_array_equal(found, moved(start, copies[::-1])["w"])
    assert moved(state(0), [done("a", 1)])["n"] == 7


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_a_copy_that_would_spoil_the_mean_is_refused(value: float) -> None:
    held = Held(state(0))
    held.finish(1, done("alba", 1))
    with pytest.raises(SensitivityError):
        held.finish(1, done("brno", value))
    assert np.unique(held.begin(2)["w"]).item() == 1


def test_the_last_attempt_alone_counts() -> None:
    held = Held(state(0))
    held.finish(1, done("alba", 1))
    held.finish(1, done("brno", 2))
    assert value(held.begin(1)) == 0
    held.finish(1, done("alba", 10, attempt=2))
    held.finish(1, done("alba", 99, attempt=1))  # late
    assert value(held.begin(2)) == 10


def test_a_round_that_nobody_came_to_the_end_of_changes_nothing() -> None:
    held = Held(state(0))
    held.finish(1, done("alba", 1))
    assert value(held.begin(2)) == 1
    assert value(held.begin(5)) == 1
    held.finish(1, done("brno", 9))  # over
    assert value(held.begin(6)) == 1
    assert held.latest()[0] == 1


def test_fewer_copies_than_a_sum_takes_move_nothing(tmp_path: Path) -> None:
    """The round was skipped for everybody: one site's copy would be its update, in what the others see next."""
    held = Held.of_folder(tmp_path / "held", state(0), fewest=3)
    for site in ("alba", "brno", "cork"):
        held.finish(1, done(site, 3))
    held.finish(1, done("alba", 9, attempt=2))
    held.finish(1, done("brno", 9, attempt=2))
    assert value(held.latest()[1]) == value(held.begin(2)) == 0
    held.finish(1, done("cork", 9, attempt=2))  # over
    for site in ("alba", "brno", "cork"):
        held.finish(2, done(site, 3))
    assert value(held.latest()[1]) == value(held.begin(3)) == 3
    again = Held.of_folder(tmp_path / "held", state(0), fewest=3)
    again.finish(3, done("alba", 9))
    assert value(again.begin(4)) == 3


def test_a_killed_process_finds_what_was_finished(tmp_path: Path) -> None:
    path = tmp_path / "held" / "run"
    Held.of_folder(path, state(0)).finish(1, done("alba", 1))
    Held.of_folder(path, state(0)).finish(1, done("brno", 3, weight=1))
    again = Held.of_folder(path, state(0))
    assert again.latest()[0] == 1
    assert value(again.latest()[1]) == 2
    assert value(again.begin(2)) == 2
    assert [each.name for each in path.iterdir()] == ["1.safetensors"]
    third = Held.of_folder(path, state(0))
    assert (third.over, value(third.begin(2))) == (1, 2)
    third.finish(2, done("a.b-c_d", 8))
    assert value(Held.of_folder(path, state(0)).begin(3)) == 8
    assert [each.name for each in path.iterdir()] == ["2.safetensors"]


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "3.safetensors").write_bytes(b"not that")
    with pytest.raises(ConfigError, match="holds no piece"):
        Held.of_folder(tmp_path, state(0))
