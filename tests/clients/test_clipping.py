"""The float path: clipped sums against float64 autograd record by record and against Opacus; no unit above the clip."""

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clients import clipping
from clients.clipping import INTEGER_PARAMETERS, Batch, Clipping, chunks, on_integer_path, rows_at_once
from clients.float_noise import add_gaussian
from clients.training import opacus_model, per_record_gradients
from privacy.errors import ConfigError
from tests.clients.example import Keys

SHORTENED = 1.0 - 2.0**-20
N_CLASSES = 3


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels, reduction="none")


class Reading(nn.Module):
    """Embeddings, a linear layer at every place of a sequence, LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6, padding_idx=0)
        self.each = nn.Linear(6, 5)
        self.norm = nn.LayerNorm(5)
        self.out = nn.Linear(5, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.norm(torch.tanh(self.each(self.words(x))))
        scores: Tensor = self.out(hidden.mean(1))
        return scores


def frozen() -> nn.Module:
    first, second = nn.Linear(6, 5), nn.Linear(5, 5)
    for parameter in (first.weight, *second.parameters()):
        parameter.requires_grad = False
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(5, N_CLASSES))


IMAGE, RECORD = (2, 9, 9), (6,)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, N_CLASSES)), RECORD),
    "no bias, PReLU": (lambda: nn.Sequential(nn.Linear(6, 8, bias=False), nn.PReLU(), nn.Linear(8, 3)), RECORD),
    "frozen layers": (frozen, RECORD),
    "GroupNorm": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 2, stride=2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(24, N_CLASSES),
        ),
        IMAGE,
    ),
    "grouped and dilated": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, dilation=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3)),
        IMAGE,
    ),
    "convolutions of other kinds": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding="same"), nn.Conv2d(3, 3, 2, padding_mode="reflect", padding=1),
            nn.ConvTranspose2d(3, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(242, N_CLASSES),
        ),
        IMAGE,
    ),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(9, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(28, 3)), (9, 9)),
    "embeddings": (Reading, (7,)),
}  # fmt: skip
KNOWN_TO_OPACUS = sorted(set(MODELS) - {"no bias, PReLU", "convolutions of other kinds"})


def example(name: str, n_records: int = 12, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    build, shape = MODELS[name]
    torch.manual_seed(seed)
    model = build()
    words = name == "embeddings"
    inputs = torch.randint(0, 20, (n_records, *shape)) if words else torch.randn(n_records, *shape)
    return model, inputs, torch.randint(0, N_CLASSES, (n_records,))


def clipped_sum(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, clip: float, sizes: Sequence[int] | None = None
) -> Tensor:
    return Clipping(model, losses).sum(inputs, labels, clip=clip, sizes=sizes).double()


def one_by_one(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradients of each record on its own, by plain autograd in float64; shape ``(b, d)``."""
    double = copy.deepcopy(model).double()
    parameters = [parameter for parameter in double.parameters() if parameter.requires_grad]
    x = inputs.double() if inputs.is_floating_point() else inputs
    rows = [
        torch.autograd.grad(losses(double(x[i : i + 1]), labels[i : i + 1]).sum(), parameters) for i in range(len(x))
    ]
    return torch.stack([torch.cat([each.flatten() for each in row]) for row in rows])


def by_unit(per_record: Tensor, sizes: Sequence[int] | None) -> Tensor:
    return per_record if sizes is None else torch.stack([part.sum(0) for part in per_record.split(list(sizes))])  # type: ignore[no-untyped-call]


def reference(per_unit: Tensor, clip: float) -> Tensor:
    factors = (clip * SHORTENED / torch.linalg.vector_norm(per_unit.double(), dim=1)).clamp(max=1.0)
    return torch.matmul(factors, per_unit.double())


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    assert float((found.double() - expected).norm()) <= tolerance * float(expected.double().norm())


SIZES = {"records": None, "patients": [1, 4, 2, 5]}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_equals_autograd_record_by_record_in_float64(name: str, sizes: list[int] | None) -> None:
    model, inputs, labels = example(name)
    per_unit = by_unit(one_by_one(model, inputs, labels), sizes)
    middle = float(per_unit.norm(dim=1).median())
    for clip in (middle, 1e-3 * middle, 1e3 * middle):
        found = clipped_sum(model, inputs, labels, clip=clip, sizes=sizes)
        assert_close(found, reference(per_unit, clip))


@pytest.mark.filterwarnings("ignore:Full backward hook")  # Opacus, where inputs are words
@pytest.mark.parametrize("name", KNOWN_TO_OPACUS)
def test_equals_opacus(name: str) -> None:
    model, inputs, labels = example(name)
    inputs = inputs.clamp(min=1) if name == "embeddings" else inputs  # Opacus forgets that padding is not learnt
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # which its hooks cannot stand
    wrapped = opacus_model(plain)
    per_record = torch.cat([each.flatten(1) for each in per_record_gradients(wrapped, losses, inputs, labels)], dim=1)
    clip = float(per_record.norm(dim=1).median())
    assert_close(clipped_sum(model, inputs, labels, clip=clip), reference(per_record, clip))


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    named=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_mlp(widths: list[int], sizes: list[int], named: bool, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layers = [[nn.Linear(p, q, bias=bias), nn.Tanh()] for p, q in pairwise([*widths, N_CLASSES])]
    model = nn.Sequential(*(layer for pair in layers for layer in pair))
    check(model, torch.randn(sum(sizes), widths[0]), sizes if named else None)


@settings(max_examples=15, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    groups=st.integers(1, 2),
    image=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_any_convolution(
    kernel: tuple[int, int], stride: int, padding: int, groups: int, image: tuple[int, int], sizes: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, kernel, stride=stride, padding=padding, groups=groups),
        nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, N_CLASSES),
    )
    check(model, torch.randn(sum(sizes), 2, *image), sizes)


def check(model: nn.Module, inputs: Tensor, sizes: list[int] | None) -> None:
    labels = torch.randint(0, N_CLASSES, (len(inputs),))
    per_unit = by_unit(one_by_one(model, inputs, labels), sizes)
    clip = float(per_unit.norm(dim=1).median())
    found = clipped_sum(model, inputs, labels, clip=clip, sizes=sizes)
    # Relative to what was added up: units may cancel in the sum, rounding errors do not.
    scale = per_unit.norm(dim=1).clamp(max=clip).sum()
    assert float((found - reference(per_unit, clip)).norm()) <= 1e-6 * float(scale)


class TestNoUnitIsAboveTheClip:
    """Whatever a record holds: what a unit adds has a float64 norm of at most C, and nobody else is touched."""

    @pytest.mark.parametrize("name", ["mlp", "GroupNorm"])
    @pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-40, 1e-20, 1.0, 1e20, 1e30, 3e38])
    def test_alone(self, name: str, scale: float) -> None:
        for clip in (1e-30, 1.0, 1e6):
            for seed in range(4):
                model, inputs, labels = example(name, 1, seed)
                found = clipped_sum(model, inputs * scale, labels, clip=clip)
                assert float(found.norm()) <= clip

    @settings(max_examples=60, deadline=None)
    @given(weight=st.floats(-120, 127), value=st.floats(-149, 127), clip=st.floats(-60, 60), seed=st.integers(0, 2**31))
    def test_whatever_the_sizes(self, weight: float, value: float, clip: float, seed: int) -> None:
        torch.manual_seed(seed)
        last = nn.Linear(3, N_CLASSES)
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), last)
        with torch.no_grad():
            last.weight.mul_(2.0**weight)
        found = clipped_sum(model, torch.randn(1, 4) * 2.0**value, torch.tensor([1]), clip=2.0**clip)
        assert float(found.norm()) <= 2.0**clip

    def test_clipped_ones_are_all_but_as_long_as_the_clip(self) -> None:
        model, inputs, labels = example("GroupNorm", 1)
        found = clipped_sum(model, inputs, labels, clip=1e-3)
        assert float(found.norm()) >= 1e-3 * (1 - 2.0**-19)

    def test_a_large_gradient_still_counts(self) -> None:
        # The inputs' squares overflow float32, and so would the gradient's norm.
        model, inputs, labels = example("mlp", 1)
        inputs = inputs * 1e25
        labels = model(inputs).argmin(dim=1)
        found = clipped_sum(model, inputs, labels, clip=1.0)
        assert float(found.norm()) > 0.999

    @pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
    @pytest.mark.parametrize("name", ["mlp", "GroupNorm"])
    def test_a_record_that_is_no_number_contributes_zero(self, name: str, bad: float) -> None:
        model, inputs, labels = example(name)
        inputs[3].view(-1)[2] = bad
        others = torch.arange(12) != 3
        found = clipped_sum(model, inputs, labels, clip=0.5)
        assert_close(found, clipped_sum(model, inputs[others], labels[others], clip=0.5))

    def test_and_takes_its_patient_with_it(self) -> None:
        model, inputs, labels = example("GroupNorm")
        inputs[3] = math.nan
        found = clipped_sum(model, inputs, labels, clip=0.5, sizes=[2, 3, 7])
        others = torch.tensor([0, 1, 5, 6, 7, 8, 9, 10, 11])
        expected = clipped_sum(model, inputs[others], labels[others], clip=0.5, sizes=[2, 7])
        assert_close(found, expected)

    @pytest.mark.parametrize("size", [1e3, 1e6])
    def test_a_patient_whose_large_records_cancel(self, size: float) -> None:
        # One layer, one input: the two gradients are opposite but for a part in a million.
        model = nn.Linear(1, N_CLASSES, bias=False)
        with torch.no_grad():
            model.weight.zero_()
        inputs, labels = torch.tensor([[size], [-size * (1 + 1e-6)]]), torch.tensor([0, 0])
        found = clipped_sum(model, inputs, labels, clip=1e-4, sizes=[2])
        assert float(found.norm()) <= 1e-4


def refused(model: nn.Module, inputs: Tensor, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        clipped_sum(model, inputs, torch.zeros(len(inputs), dtype=torch.int64), clip=1.0)
    assert not any(module._forward_hooks for module in model.modules())


class Odd(nn.Module):
    """Layers used in a way that the engine must not guess at."""

    def __init__(self, use: Callable[[nn.Module, nn.Module, Tensor], Tensor], second: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second, self.use = nn.Linear(6, 6), second or nn.Linear(6, N_CLASSES), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.first, self.second, x)


def overwritten(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    hidden = torch.relu(x * 2.0)
    out: Tensor = second(first(hidden))
    hidden.zero_()
    return out


def unheard(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    first(x)
    out: Tensor = second(x)
    return out


ODD: dict[str, Callable[[nn.Module, nn.Module, Tensor], Tensor]] = {
    "takes part twice": lambda first, second, x: second(first(first(x))),
    "takes no part": lambda _first, second, x: second(x),
    "does not take records one by one": lambda first, second, x: second(first(x.reshape(-1, 3, 6))).reshape(-1, 3),
    "is overwritten": overwritten,
    "takes no part in its output": unheard,
}


@pytest.mark.parametrize("expected", ODD)
def test_layers_used_in_other_ways_are_refused(expected: str) -> None:
    refused(Odd(ODD[expected]), torch.randn(12, 6), expected)


def test_layers_of_other_ways_are_refused() -> None:
    recurrent = Odd(lambda first, second, x: second(first(x)[:, None])[0][:, 0, :3], nn.GRU(6, 6, batch_first=True))
    refused(recurrent, torch.randn(12, 6), "GRU does not take records one by one")
    shared = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    shared[1].weight = shared[0].weight
    refused(shared, torch.randn(4, 3), "shares a parameter")
    refused(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)), torch.randn(4, 3), "BatchNorm1d mixes")


def test_the_model_is_left_as_it_was() -> None:
    model, inputs, labels = example("GroupNorm")
    before = copy.deepcopy(model.state_dict())
    clipped_sum(model, inputs, labels, clip=1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("n_parameters", [1, INTEGER_PARAMETERS - 1, INTEGER_PARAMETERS, INTEGER_PARAMETERS + 1])
def test_the_path_depends_on_the_number_of_parameters_alone(n_parameters: int) -> None:
    assert on_integer_path(nn.Linear(n_parameters, 1, bias=False)) is (n_parameters <= INTEGER_PARAMETERS)


@given(sizes=st.lists(st.integers(1, 12), max_size=12), most=st.integers(1, 10))
def test_pieces_hold_every_record_once_and_whole_units(sizes: list[int], most: int) -> None:
    pieces = list(chunks(sum(sizes), sizes, most))
    assert [row for rows, _ in pieces for row in range(rows.start, rows.stop)] == list(range(sum(sizes)))
    assert [size for _, held in pieces for size in held or []] == sizes
    for rows, held in pieces:
        assert held
        assert rows.stop - rows.start == sum(held)
        assert sum(held) <= most or len(held) == 1


def noisy(model: nn.Module, batch: Batch, keys: Keys, *, noise: float = 3.0, denominator: float = 1.0) -> Tensor:
    how = Clipping(model, losses)
    return how.noisy_mean(batch, clip=0.5, noise_multiplier=noise, denominator=denominator, entropy=keys)


def drawn(model: nn.Module, sigma: float) -> Tensor:
    """The noise that the same key gives again."""
    entries = torch.zeros(sum(each.numel() for each in model.parameters()), dtype=torch.float64)
    add_gaussian(entries, sigma, Keys())
    return entries


class TestNoisyMean:
    @pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
    @pytest.mark.parametrize("most", [1, 5, 11, 12])
    def test_pieces_do_not_change_it(self, sizes: list[int] | None, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        model, inputs, labels = example("GroupNorm")
        whole = clipped_sum(model, inputs, labels, clip=0.5, sizes=sizes)
        monkeypatch.setattr(clipping, "_MOST_ROWS", most)
        keys = Keys()
        assert_close(noisy(model, (inputs, labels, sizes), keys, noise=1e-9), whole)
        assert len(keys.drawn) == 1

    @pytest.mark.parametrize("denominator", [1.0, 7.3, 1e4])
    def test_noise_joins_the_sum_and_both_are_divided(self, denominator: float) -> None:
        model, inputs, labels = example("GroupNorm")
        whole = clipped_sum(model, inputs, labels, clip=0.5)
        found = noisy(model, (inputs, labels, None), Keys(), denominator=denominator)
        assert_close(found, (whole + drawn(model, 1.5)) / denominator)

    @pytest.mark.parametrize("sizes", [None, []])
    def test_an_empty_batch_is_noise(self, sizes: list[int] | None) -> None:
        model, inputs, labels = example("mlp")
        found = noisy(model, (inputs[:0], labels[:0], sizes), Keys(), denominator=4.0)
        assert_close(found, drawn(model, 1.5 / 4.0))

    def test_few_values_are_formed_at_once(self) -> None:
        with torch.device("meta"):
            models = (nn.Linear(10**4, 10**4), nn.Conv2d(512, 512, 4), nn.Embedding(10**5, 10**3))
            assert [Clipping(model, losses)._rows for model in models] == [512, 3, 1]
        assert rows_at_once(INTEGER_PARAMETERS) == 512


def test_chunks_of_records() -> None:
    assert list(chunks(5, None, 2)) == [(slice(0, 2), None), (slice(2, 4), None), (slice(4, 6), None)]
    assert not list(chunks(0, None, 2))
    assert np.array_equal(np.arange(5)[slice(4, 6)], [4])
