from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.errors import ConfigError
from strategies.layout import Layout
from strategies.models import build, layout_of, load_vector, to_vector
from strategies.sub_models import by_shape
from strategies.task import ModelSpec
from tests.strategies.contract import vector

LOGISTIC = ModelSpec("logistic", init="torch")
MLP = ModelSpec("mlp", hidden=(5,), init="torch")
DEEP = ModelSpec("mlp", (8, 4, 12), "torch", outputs=3)
CNN = ModelSpec("cnn", (8, 16, 24), "torch", image=(2, 8, 9), outputs=3)


def reference(seed: int, *layers: tuple[int, int]) -> torch.Tensor:
    """Builds linear layers as anybody would under a global seed; returns their parameters in one row."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = [nn.Linear(n_in, n_out) for n_in, n_out in layers]
    return torch.cat([parameter.reshape(-1) for layer in built for parameter in layer.parameters()]).detach()


@pytest.mark.parametrize("seed", [0, 42, 43, 44, 45, 46, 2**32 - 1])
def test_starts_where_flamby_starts(seed: int) -> None:
    # FLamby seeds torch globally, then builds Linear(13, 1); 150 of its 150 released federated scores follow from that.
    np.testing.assert_array_equal(to_vector(build(LOGISTIC, 13, seed)), reference(seed, (13, 1)).numpy())


def test_mlp_is_linear_relu_linear() -> None:
    module = build(MLP, 3, 7)
    np.testing.assert_array_equal(to_vector(module), reference(7, (3, 5), (5, 1)).numpy())
    records = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    w1, b1, w2, b2 = module.parameters()
    torch.testing.assert_close(module(records), torch.relu(records @ w1.T + b1) @ w2.T + b2)
    assert module(records).shape == (4, 1)


def test_logistic_gives_a_logit_not_a_probability() -> None:
    module = build(LOGISTIC, 2, 1)
    load_vector(module, vector(1.0, 2.0, 10.0))  # two weights, then the bias
    assert module(torch.tensor([[1.0, 1.0]])).item() == 13.0


@pytest.mark.parametrize("spec", [LOGISTIC, ModelSpec("logistic"), MLP], ids=["torch", "zero", "mlp"])
def test_leaves_the_global_generator_alone_and_does_not_depend_on_it(spec: ModelSpec) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = to_vector(build(spec, 4, 9))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    np.testing.assert_array_equal(to_vector(build(spec, 4, 9)), first)


def test_starts_at_zero() -> None:
    np.testing.assert_array_equal(to_vector(build(ModelSpec("logistic", init="zero"), 4, 9)), np.zeros(5))


def test_layout_is_torchs_own_order() -> None:
    layout = layout_of(build(MLP, 3, 0))
    assert dict(zip(layout.names, layout.shapes, strict=True)) == {
        "0.weight": (5, 3),
        "0.bias": (5,),
        "2.weight": (1, 5),
        "2.bias": (1,),
    }
    state = build(MLP, 3, 0).state_dict()
    assert tuple(state) == layout.names


def test_vector_and_module_do_not_share_memory() -> None:
    module = build(LOGISTIC, 2, 0)
    given = vector(1.0, 2.0, 3.0)
    load_vector(module, given)
    given[:] = 0.0
    read = to_vector(module)
    np.testing.assert_array_equal(read, [1.0, 2.0, 3.0])
    read[:] = 0.0
    np.testing.assert_array_equal(to_vector(module), [1.0, 2.0, 3.0])


def test_loads_read_only_vectors_without_complaint(recwarn: pytest.WarningsRecorder) -> None:
    sealed = vector(1.0, 2.0, 3.0)
    sealed.setflags(write=False)
    module = build(LOGISTIC, 2, 0)
    load_vector(module, sealed)
    np.testing.assert_array_equal(to_vector(module), sealed)
    assert not recwarn.list


def test_loading_keeps_the_parameters_that_an_optimizer_holds() -> None:
    module = build(LOGISTIC, 2, 0)
    held = list(module.parameters())
    load_vector(module, vector(1.0, 2.0, 3.0))
    assert all(now is then for now, then in zip(module.parameters(), held, strict=True))
    assert all(parameter.requires_grad for parameter in held)


def test_refuses_a_vector_of_another_size_and_leaves_the_module() -> None:
    module = build(LOGISTIC, 2, 0)
    before = to_vector(module)
    with pytest.raises(ValueError, match="not float32 of shape"):
        load_vector(module, np.zeros(4, dtype=np.float32))
    np.testing.assert_array_equal(to_vector(module), before)


@pytest.mark.parametrize(
    ("spec", "n_inputs", "seed", "message"),
    [
        (ModelSpec("mlp", (5,), "zero"), 3, 0, "kind mlp cannot start at zero"),
        (replace(CNN, init="zero"), 144, 0, "kind cnn cannot start at zero"),
        (ModelSpec("mlp", (10**30,), "torch"), 3, 0, "more weights than any machine"),
        (ModelSpec("mlp", (2**16, 2**16), "torch"), 3, 0, "more weights than any machine"),
        (ModelSpec("mlp", (), "torch"), 3, 0, r"kind mlp with hidden sizes \[\]"),
        (ModelSpec("mlp", (4, 0), "torch"), 3, 0, r"hidden sizes \[4, 0\]"),
        (ModelSpec("logistic", (5,)), 3, 0, "no hidden layer"),
        (ModelSpec("logistic", exits=True), 3, 0, "no hidden layer"),
        (ModelSpec("logistic", outputs=0), 3, 0, "0 outputs"),
        (replace(MLP, image=(1, 1, 3)), 3, 0, "kind cnn has an image, and no other has"),
        (replace(CNN, image=None), 144, 0, "kind cnn has an image, and no other has"),
        (CNN, 143, 0, "2 x 8 x 9 values, and the features give 143"),
        (replace(CNN, image=(2, -8, -9)), 144, 0, "an image of 2 x -8 x -9"),
        (replace(CNN, hidden=(8, 6)), 144, 0, r"channels \[8, 6\]: 4 at a time"),
        (replace(CNN, hidden=(4, 4, 4, 4, 4)), 144, 0, "5 blocks are too many"),
        (LOGISTIC, 0, 0, "0 inputs"),
        (LOGISTIC, 3, -1, "seed -1 is out of range"),
        (LOGISTIC, 3, 2**32, "seed 4294967296 is out of range"),
    ],
)
def test_refuses_what_makes_no_model(spec: ModelSpec, n_inputs: int, seed: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        build(spec, n_inputs, seed)
    assert refusal.value.hint


def inputs(spec: ModelSpec) -> int:
    return 6 if spec.image is None else int(np.prod(spec.image))


def made(spec: ModelSpec) -> nn.Module:
    """A model with every parameter moved away from torch's ones and zeros."""
    module = build(spec, inputs(spec), 3)
    load_vector(module, np.random.default_rng(8).normal(size=to_vector(module).size).astype(np.float32))
    return module


def records(spec: ModelSpec) -> Tensor:
    return torch.randn(5, inputs(spec), generator=torch.Generator().manual_seed(1))


def test_one_class_each_and_several_layers() -> None:
    module = build(DEEP, 6, 7)
    np.testing.assert_array_equal(to_vector(module), reference(7, (6, 8), (8, 4), (4, 12), (12, 3)).numpy())
    assert layout_of(module).names == tuple(f"{place}.{kind}" for place in (0, 2, 4, 6) for kind in ("weight", "bias"))
    w = list(module.parameters())
    value = records(DEEP)
    for place in (0, 2, 4):
        value = torch.relu(value @ w[place].T + w[place + 1])
    torch.testing.assert_close(module(records(DEEP)), value @ w[6].T + w[7])
    assert build(replace(LOGISTIC, outputs=3), 6, 0)(records(DEEP)).shape == (5, 3)


def image_exits(module: nn.Module, spec: ModelSpec) -> list[Tensor]:
    """What every block's features are, written down with torch's functions from the published description."""
    w = [parameter for name, parameter in module.named_parameters() if "conv" in name or "norm" in name]
    assert spec.image is not None
    value, found = records(spec).reshape(5, *spec.image), []
    for block in range(len(spec.hidden)):
        value = functional.max_pool2d(value, 2) if block else value
        weight, bias, scale, shift = w[4 * block : 4 * block + 4]
        value = functional.conv2d(value, weight, bias, padding=1)
        value = torch.relu(functional.group_norm(value, spec.hidden[block] // 4, scale, shift))
        found.append(value.mean((2, 3)))
    return found


def test_cnn_is_convolution_norm_relu_pool() -> None:
    module = made(CNN)
    *_, w, b = module.parameters()
    torch.testing.assert_close(module(records(CNN)), image_exits(module, CNN)[-1] @ w.T + b)
    assert module(records(CNN)).shape == (5, 3)


def test_every_block_has_an_exit() -> None:
    spec = replace(CNN, exits=True)
    module = made(spec)
    heads = [parameter for name, parameter in module.named_parameters() if name.startswith("exits")]
    features = image_exits(module, spec)
    expected = [each @ w.T + b for each, w, b in zip(features, heads[::2], heads[1::2], strict=True)]
    torch.testing.assert_close(module(records(spec)), torch.stack(expected, dim=1))
    assert module(records(spec)).shape == (5, 3, 3)


@pytest.mark.parametrize(
    ("width", "count"), [(1.0, 1556874), (0.5, 391370), (0.25, 98922), (0.125, 25274), (0.0625, 6594)]
)
def test_has_as_many_parameters_as_heterofl_published(width: float, count: int) -> None:
    """Diao, Ding and Tarokh, ICLR 2021, table of the MNIST CNN, rows a to e."""
    whole = ModelSpec("cnn", (64, 128, 256, 512), "torch", image=(1, 28, 28), outputs=10)
    assert layout_of(build(whole.part(width), 784, 0)).size == count


PARTS = {
    "mlp, half": (DEEP, 0.5, 0),
    "mlp, one exit of three": (replace(DEEP, exits=True), 1.0, 1),
    "mlp, quarter of two exits": (replace(DEEP, exits=True), 0.25, 2),
    "cnn, half": (CNN, 0.5, 0),
    "cnn, two exits": (replace(CNN, exits=True), 1.0, 2),
    "cnn, half of two exits": (replace(CNN, exits=True), 0.5, 2),
    "cnn, half of all exits": (replace(CNN, exits=True), 0.5, 0),
}


def layouts(spec: ModelSpec, width: float, depth: int) -> tuple[Layout, Layout]:
    whole, part = (layout_of(build(each, inputs(spec), 0)) for each in (spec, spec.part(width, depth)))
    return whole, part


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_made_of_leading_slices(name: str) -> None:
    whole, part = layouts(*PARTS[name])
    shapes = dict(zip(whole.names, whole.shapes, strict=True))
    for held, shape in zip(part.names, part.shapes, strict=True):
        assert len(shape) == len(shapes[held])
        assert all(short <= long for short, long in zip(shape, shapes[held], strict=True))
    assert part.size < whole.size
    assert by_shape(whole, part).piece == part


@pytest.mark.parametrize("name", PARTS)
def test_a_part_gives_what_the_whole_gives_where_the_rest_is_zero(name: str) -> None:
    """So a slice means the same in both: its inputs, its groups of channels, its exits."""
    spec, width, depth = PARTS[name]
    module, piece = made(spec), made(spec.part(width, depth))
    values = dict(piece.named_parameters())
    with torch.no_grad():
        for held, parameter in module.named_parameters():
            parameter.zero_()
            if held in values:
                parameter[tuple(slice(extent) for extent in values[held].shape)] = values[held]
    found, expected = module(records(spec)), piece(records(spec))
    if spec.exits:
        found = found[:, : expected.shape[1]]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("spec", "width", "depth", "message"),
    [
        (DEEP, 0.0, 0, "a part of width 0"),
        (DEEP, 1.5, 0, "a part of width 1.5"),
        (DEEP, float("nan"), 0, "a part of width nan"),
        (DEEP, 0.125, 0, r"width 0.125 of hidden sizes \[8, 4, 12\] does not give whole numbers"),
        (CNN, 0.25, 0, r"width 0.25 of hidden sizes \[8, 16, 24\] does not give multiples of 4"),
        (ModelSpec("logistic"), 0.5, 0, "no hidden size to narrow"),
        (DEEP, 1.0, 2, "only a model with exits"),
        (replace(DEEP, exits=True), 1.0, 4, "a part of depth 4, and the model has 3"),
        (replace(DEEP, exits=True), 1.0, -1, "a part of depth -1"),
        (ModelSpec("logistic"), 1.0, 1, "a part of depth 1, and the model has 0"),
    ],
)
def test_refuses_what_is_no_part(spec: ModelSpec, width: float, depth: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        spec.part(width, depth)
    assert refusal.value.hint


def test_the_whole_is_a_part_and_shares_are_decimal() -> None:
    assert CNN.part() == CNN
    assert DEEP.part(depth=3) == DEEP
    assert ModelSpec("mlp", (100, 300), "torch").part(0.07).hidden == (7, 21)  # in binary, 7.000000000000001
