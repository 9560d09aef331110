"""What holds for every algorithm; a test class of each inherits these tests."""

from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.algorithm import Algorithm
from strategies.contribution import Aggregate, Contribution, Vector, weighted_mean
from strategies.task import SiteId

A, B = SiteId("a"), SiteId("b")
WEIGHTS: Mapping[SiteId, float] = MappingProxyType({A: 1.0, B: 3.0})


def vector(*values: float) -> Vector:
    return np.array(values, dtype=np.float32)


START = vector(1.0, -1.0, 0.0)
ROUNDS: Sequence[Mapping[SiteId, Vector]] = (
    {A: vector(8.0, 4.0, 8.0), B: vector(0.0, 4.0, 8.0)},
    {A: vector(4.0, 0.0, -4.0), B: vector(0.0, 8.0, 4.0)},
)
"""What the sites contribute in the two rounds that every algorithm's test works out by hand."""


def contributed(algorithm: Algorithm[Any], updates: Mapping[SiteId, Vector]) -> list[tuple[SiteId, Contribution]]:
    """Each site sends its update under the first declared name, and half of it under any other."""
    first, *others = algorithm.declared.arrays
    return [
        (site, Contribution({first: update, **{name: update / np.float32(2.0) for name in others}}))
        for site, update in updates.items()
    ]


def as_arrays(state: object) -> dict[str, NDArray[np.float64]]:
    return {field.name: getattr(state, field.name) for field in fields(state)}  # type: ignore[arg-type]  # a dataclass, always


def assert_same(left: object, right: object) -> None:
    for name, array in as_arrays(left).items():
        np.testing.assert_array_equal(array, as_arrays(right)[name], err_msg=name)


class AlgorithmContract:
    """Inherited by one test class per algorithm.

    Attributes:
      algorithm: The algorithm under test.
      broadcasts: Names of what the sites receive.
      rests: Whether an update of zero leaves the model where it is, in any round.
    """

    algorithm: Algorithm[Any]
    broadcasts: tuple[str, ...] = ("model",)
    rests: bool = False

    def run(
        self,
        weights: Mapping[SiteId, float] = WEIGHTS,
        *,
        rounds: Sequence[Mapping[SiteId, Vector]] = ROUNDS,
        backwards: bool = False,
    ) -> Any:
        state = self.algorithm.init(START)
        for updates in rounds:
            contributions = contributed(self.algorithm, updates)
            aggregate = weighted_mean(contributions[::-1] if backwards else contributions, weights)
            state = self.algorithm.apply(state, aggregate, 1.0)
        return state

    def zero(self) -> Aggregate:
        return weighted_mean(contributed(self.algorithm, {A: np.zeros(3, dtype=np.float32)}), WEIGHTS)

    def test_starts_at_the_given_model(self) -> None:
        np.testing.assert_array_equal(self.algorithm.parameters(self.algorithm.init(START)), START)

    def test_does_not_hold_on_to_the_array_it_was_given(self) -> None:
        given = START.copy()
        state = self.algorithm.init(given)
        given[:] = 7.0
        np.testing.assert_array_equal(self.algorithm.parameters(state), START)

    @pytest.mark.parametrize(
        "bad", [START.reshape(3, 1), START.astype(np.float64), vector(1.0, np.nan)], ids=["shape", "dtype", "nan"]
    )
    def test_refuses_to_start_at_anything_but_a_finite_float32_vector(self, bad: Any) -> None:
        with pytest.raises(ValueError, match="initial model"):
            self.algorithm.init(bad)

    def test_broadcast_is_float32_of_the_models_shape(self) -> None:
        sent = self.algorithm.broadcast(self.run())
        assert tuple(sent) == self.broadcasts
        assert {(array.dtype.str, array.shape) for array in sent.values()} == {("<f4", (3,))}
        np.testing.assert_array_equal(sent["model"], self.algorithm.parameters(self.run()))

    def test_states_and_broadcasts_cannot_be_written_to(self) -> None:
        state = self.run()
        name = fields(state)[0].name
        with pytest.raises(FrozenInstanceError):
            setattr(state, name, None)
        assert not any(array.flags.writeable for array in as_arrays(state).values())
        assert not any(array.flags.writeable for array in self.algorithm.broadcast(state).values())
        assert not self.algorithm.parameters(state).flags.writeable

    def test_apply_leaves_its_arguments_as_they_were(self) -> None:
        state = self.run()
        before = {name: array.copy() for name, array in as_arrays(state).items()}
        aggregate = weighted_mean(contributed(self.algorithm, ROUNDS[0]), WEIGHTS)
        means = {name: array.copy() for name, array in aggregate.mean.items()}
        self.algorithm.apply(state, aggregate, 1.0)
        for name, array in as_arrays(state).items():
            np.testing.assert_array_equal(array, before[name])
        for name, array in aggregate.mean.items():
            np.testing.assert_array_equal(array, means[name])

    def test_apply_moves_the_model(self) -> None:
        assert (self.algorithm.parameters(self.run()) != START).any()

    def test_same_rounds_give_the_same_bits(self) -> None:
        assert_same(self.run(), self.run())

    def test_weights_matter_only_in_proportion(self) -> None:
        # Times 4 is exact in binary, so every bit stays.
        assert_same(self.run(), self.run({site: 4.0 * weight for site, weight in WEIGHTS.items()}))

    def test_order_of_sites_matters_only_by_rounding(self) -> None:
        for name, array in as_arrays(self.run(backwards=True)).items():
            np.testing.assert_allclose(array, as_arrays(self.run())[name], rtol=1e-12)

    def test_zero_update_before_any_other_leaves_the_model(self) -> None:
        state = self.algorithm.apply(self.algorithm.init(START), self.zero(), 1.0)
        np.testing.assert_array_equal(self.algorithm.parameters(state), START)

    def test_zero_update_later_leaves_the_model_unless_there_is_momentum(self) -> None:
        state = self.run()
        after = self.algorithm.apply(state, self.zero(), 1.0)
        moved = (self.algorithm.parameters(after) != self.algorithm.parameters(state)).any()
        assert moved != self.rests

    def test_refuses_an_aggregate_with_other_names(self) -> None:
        state = self.algorithm.init(START)
        good = self.zero().mean
        extra = {**good, "gradient": np.zeros(3)}
        for mean in ({}, extra, {f"{name}s": array for name, array in good.items()}):
            with pytest.raises(ValueError, match="declared are"):
                self.algorithm.apply(state, Aggregate(mean, 4.0), 1.0)

    def test_refuses_an_aggregate_of_another_shape(self) -> None:
        for shape in ((1,), (4,), (3, 1)):
            mean = {name: np.zeros(shape) for name in self.algorithm.declared.arrays}
            with pytest.raises(ValueError, match="shape"):
                self.algorithm.apply(self.algorithm.init(START), Aggregate(mean, 4.0), 1.0)

    @pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
    def test_refuses_an_impossible_share(self, share: float) -> None:
        with pytest.raises(ValueError, match="share"):
            self.algorithm.apply(self.algorithm.init(START), self.zero(), share)

    def test_needs_only_the_sum(self) -> None:
        # Two sites whose weighted sum is the same as that of the first round, but nothing else is.
        assert self.algorithm.is_sum
        others = {A: vector(-4.0, 28.0, 2.0), B: vector(4.0, -4.0, 10.0)}
        states = [
            self.algorithm.apply(
                self.algorithm.init(START), weighted_mean(contributed(self.algorithm, updates), WEIGHTS), 1.0
            )
            for updates in (ROUNDS[0], others)
        ]
        assert_same(*states)
