"""Distributed noise does what central noise does, and is priced like it: the issue's bar, over twenty runs."""

import secrets
import sys

import pytest

from simulations.bench.privacy import central_and_distributed
from tests.privacy.secagg.parties import seeded


def test_distributed_noise_costs_what_the_same_central_noise_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fixed bits: the means differ by half a standard deviation, and twenty runs do not measure that surely."""
    monkeypatch.setattr(secrets, "token_bytes", seeded("bench"))
    found = central_and_distributed(20, sys.stderr)
    central, distributed = found["scores"]["central"], found["scores"]["distributed"]
    assert abs(central["mean"] - distributed["mean"]) <= max(central["sd"], distributed["sd"])
    prices = found["epsilon_rdp"]
    assert prices["distributed"] == pytest.approx(prices["central"], abs=1e-3)
    # Two of four shares are counted on: that is the price. What all four would give is hypothetical.
    assert prices["distributed, 2 shares"] == pytest.approx(prices["distributed"], abs=1e-3)
    assert prices["distributed, 4 shares"] < prices["distributed, 3 shares"] < prices["distributed"]
