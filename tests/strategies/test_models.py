import numpy as np
import pytest
import torch
from torch import nn

from privacy.errors import ConfigError
from strategies.models import build, layout_of, load_vector, to_vector
from strategies.task import ModelSpec
from tests.strategies.contract import vector

LOGISTIC = ModelSpec("logistic", init="torch")
MLP = ModelSpec("mlp", hidden=5, init="torch")


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
        (ModelSpec("mlp", hidden=5, init="zero"), 3, 0, "cannot start at zero"),
        (ModelSpec("mlp", hidden=0, init="torch"), 3, 0, "0 hidden units"),
        (ModelSpec("logistic", hidden=5), 3, 0, "no hidden layer"),
        (LOGISTIC, 0, 0, "0 inputs"),
        (LOGISTIC, 3, -1, "seed -1 is out of range"),
        (LOGISTIC, 3, 2**32, "seed 4294967296 is out of range"),
    ],
)
def test_refuses_what_makes_no_model(spec: ModelSpec, n_inputs: int, seed: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        build(spec, n_inputs, seed)
    assert refusal.value.hint
