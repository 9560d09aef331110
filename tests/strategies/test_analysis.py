"""Tracing and costs, against torch's own counter on real tensors and figures by hand; and what cannot be traced."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from privacy.errors import ConfigError
from simulations.bench.plan import in_own_process, large_gpt
from strategies.analysis import Analysis, analyse
from strategies.cuts import build, find_cuts, split
from strategies.tracing import trace
from tests.strategies.zoo import MODELS, made

COUNTED = [name for name in MODELS if name != "lstm"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for a busy core cost more than these models
    yield
    torch.set_num_threads(before)


def analysed(name: str) -> Analysis:
    model, inputs = made(name)
    return analyse(trace(model, inputs), inputs)


@pytest.mark.parametrize("name", COUNTED)
def test_flops_are_those_that_torch_counts_in_a_real_run(name: str) -> None:
    model, inputs = made(name)
    # Torch's fused attention is not counted on a CPU, its plain one is.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(*inputs)
    found = analyse(trace(model, inputs), inputs)
    assert found.flops == counter.get_total_flops() > 0
    assert not any(node.estimated for node in found.nodes)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_count_each_tensor_once_and_every_key_is_used(name: str) -> None:
    model, inputs = made(name)
    found = analyse(trace(model, inputs), inputs)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    trained = sum(node.trained for node in found.nodes)
    fixed = sum(node.fixed for node in found.nodes)
    assert trained == 4 * found.parameters
    assert fixed == sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    assert frozenset().union(*(node.keys for node in found.nodes)) == set(model.state_dict())
    assert not found.unused


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "preact_resnet18", "unet", "two_inputs"])
def test_kept_bytes_are_what_autograd_keeps_in_a_real_run(name: str) -> None:
    model, inputs = made(name)
    apart = {each.data_ptr() for each in (*model.parameters(), *model.buffers(), *inputs)}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in apart and storage.nbytes():
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(*inputs)
    expected = sum(storage.nbytes() for storage in saved.values())
    found = sum(node.kept for node in analyse(trace(model, inputs), inputs).nodes)
    assert out.requires_grad
    assert found == expected > 0


def test_bytes_by_hand() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    inputs = (torch.zeros(3, 4),)
    nodes = analyse(trace(model, inputs), inputs).nodes
    assert [node.what for node in nodes] == ["Linear", "ReLU", "Linear"]
    assert [node.bytes for node in nodes] == [96, 96, 24]
    assert [node.kept for node in nodes] == [0, 96, 0], "a ReLU needs its result, a linear layer what comes in"
    assert [node.live for node in nodes] == [48 + 96, 96 + 96, 96 + 24]


def test_a_skip_is_alive_until_it_is_used() -> None:
    nodes = {node.name: node for node in analysed("unet").nodes}
    skip, down = nodes["relu"].bytes, nodes["down"].bytes
    assert nodes["relu_1"].live == skip + down + nodes["relu_1"].bytes
    assert nodes["relu"].feeds == [*nodes].index("cat")


def test_the_model_stays_as_it_was_and_its_weights_are_not_touched() -> None:
    model, inputs = made("resnet")
    model.train()
    model[0].eval()  # type: ignore[index]
    modes = [each.training for each in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    analyse(trace(model, inputs), inputs)
    assert [each.training for each in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_torchs_fused_encoder_counts_as_much_as_the_slow_one() -> None:
    # Only frozen, in evaluation mode and with values does torch take its fused path.
    model, inputs = nn.Sequential(made("encoder")[0], Nothing()), made("encoder")[1]
    slow = analyse(trace(model, inputs), inputs).flops
    model.eval().requires_grad_(requires_grad=False)
    fused = analyse(trace(model, inputs), inputs)
    assert "measured on the example inputs" in fused.notes[-1]
    assert fused.flops == slow == analysed("encoder").flops


class Nothing(nn.Module):
    """Asks for a value and does nothing: makes the analysis run on the example."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum().item() < 1e9 else -x


@pytest.mark.parametrize(("made_of", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_estimated_and_marked(made_of: Callable[..., nn.RNNBase], gates: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells: nn.RNNBase = made_of(5, 8, 2, batch_first=True)
            self.last = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last(self.cells(x)[0])
            return out

    inputs = (torch.zeros(4, 9, 5),)
    found = analyse(trace(Net(), inputs), inputs)
    cells, *_, last = found.nodes
    assert cells.flops == 2 * gates * 8 * (5 + 8 + 8 + 8) * 4 * 9
    assert (cells.estimated, last.estimated) == (True, False)
    assert found.notes == ("FLOPs of recurrent layers are estimated: cells",)


def test_ties_and_unused_parameters_are_told() -> None:
    assert analysed("tied_gpt").tied == (frozenset({"words.weight", "head.weight"}),)

    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.used(x)
            return out

    found = analyse(trace(Spare(), (torch.zeros(1, 2),)), (torch.zeros(1, 2),))
    assert found.unused == {"spare.weight", "spare.bias"}


def test_frozen_parameters_are_not_trained() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(requires_grad=False)
    first, second = analyse(trace(model, (torch.zeros(1, 4),)), (torch.zeros(1, 4),)).nodes
    assert (first.parameters, first.trained, first.fixed) == (20, 0, 80)
    assert (second.trained, second.fixed) == (40, 0)


# What cannot be traced.


class Chooses(nn.Module):
    """Asks for a value: no graph can hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.linear(x))
        return out if out.sum() > 0 else -out


def test_a_block_that_asks_for_values_is_kept_whole_and_measured_on_the_example() -> None:
    model, inputs = nn.Sequential(nn.Linear(4, 4), Chooses(), Chooses(), nn.Linear(4, 2)), (torch.randn(3, 4),)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = analyse(trace(model, inputs), inputs)
    assert [node.what for node in found.nodes] == ["Linear", "Chooses", "Chooses", "Linear"]
    assert len(find_cuts(found)) == 3
    assert found.flops == 2 * 3 * (16 * 3 + 8)
    assert found.notes[0].startswith("Chooses cannot be traced inside, so it is kept whole: ")
    assert found.notes[1].startswith("it cannot run without values (")
    assert len(found.notes) == 2
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items()), "norms did not move"


def test_a_model_that_asks_for_values_itself_is_refused_plainly() -> None:
    with pytest.raises(ConfigError, match=r"^Chooses cannot be traced: symbolically traced variables") as caught:
        trace(Chooses(), (torch.zeros(2, 4),))
    assert "Declare its blocks" in caught.value.hint
    assert len(caught.value.lines()) == 2
    assert "\n" not in str(caught.value)


class Loops(nn.Module):
    """Code that cannot be traced, over blocks that run one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)])
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not bool(x.isfinite().all()):
            x = torch.zeros_like(x)
        for layer in self.layers:
            x = layer(x)
        out: torch.Tensor = self.head(x)
        return out


BLOCKS = ("layers.0", "layers.1", "layers.2", "head")


def test_declared_blocks_stand_in_and_are_compared_with_the_model() -> None:
    model, inputs = Loops(), (torch.randn(3, 4),)
    with pytest.raises(ConfigError, match="cannot be traced"):
        trace(model, inputs)
    traced = trace(model, inputs, blocks=BLOCKS)
    found = analyse(traced, inputs)
    assert found.notes == ("nothing was traced: its blocks are as declared",)
    cuts = find_cuts(found)
    assert len(cuts) == 3
    front, back = (build(traced, piece) for piece in split(traced, [cuts[1]]))
    torch.testing.assert_close(back(front(*inputs)), model(*inputs))


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (("layers.0", "layers.1", "head"), "do not compute Loops: other values"),
        (("layers.2", "layers.1", "layers.0", "head"), "do not compute Loops: other values"),
        (("layers.0", "nothing"), "has no submodule 'nothing'"),
        (("layers.0", ""), "has no submodule ''"),
        (("layers.0", "layers.0"), "'layers.0' is declared twice"),
        (("layers", "layers.0"), "'layers.0' is declared twice, or within another"),
        (("layers",), "do not compute Loops"),
    ],
)
def test_blocks_that_are_not_the_model_are_refused(blocks: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        trace(Loops(), (torch.randn(3, 4),), blocks=blocks)


def test_blocks_need_one_input_and_say_when_nobody_compared() -> None:
    with pytest.raises(ConfigError, match="pass on one tensor"):
        trace(Loops(), (torch.zeros(1), torch.zeros(1)), blocks=BLOCKS)
    with torch.device("meta"):
        traced = trace(Loops(), (torch.zeros(3, 4),), blocks=BLOCKS)
    assert traced.notes[1] == "without values nobody checked that the blocks in a row compute the model"


def test_torchs_encoder_itself_is_cut_between_its_declared_layers() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    model, inputs = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), (torch.randn(2, 5, 16),)
    blocks = [f"layers.{index}" for index in range(3)]
    traced = trace(model.eval(), inputs, blocks=blocks)
    cuts = find_cuts(analyse(traced, inputs))
    assert [cut.what for cut in cuts] == ["TransformerEncoderLayer"] * 2
    first, second, third = (build(traced, piece) for piece in split(traced, cuts))
    torch.testing.assert_close(third(second(first(*inputs))), model(*inputs), rtol=1e-5, atol=1e-5)


def test_code_that_asks_for_the_mode_is_told() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(self.linear(x), 0.5, self.training)

    traced = trace(Drops().eval(), (torch.zeros(1, 4),))
    assert traced.notes == (
        "its code asks for the mode outside of modules: pieces compute as in evaluation whatever their mode",
    )
    inside = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    assert not trace(inside, (torch.zeros(1, 4),)).notes


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 2.0) -> torch.Tensor:
        out: torch.Tensor = self.linear(x) * scale
        return out if mask is None else out * mask


def test_inputs_beyond_the_example_keep_their_defaults() -> None:
    model, x, mask = Optional(), torch.randn(2, 4), torch.tensor([1.0, 0.0, 1.0, 0.0])
    without, masked = trace(model, (x,)), trace(model, (x, mask))
    assert torch.equal(without.module(x), model(x))
    assert torch.equal(masked.module(x, mask), model(x, mask))
    assert [node.what for node in analyse(without, (x,)).nodes] == ["Linear", "mul"]
    assert len(analyse(masked, (x, mask)).nodes) == 3


@pytest.mark.parametrize("inputs", [(), (torch.zeros(1),) * 4])
def test_an_example_with_too_few_or_too_many_inputs_is_refused(inputs: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ConfigError, match="forward takes x, mask, scale; the example has"):
        trace(Optional(), inputs)


def test_an_example_that_does_not_fit_is_refused_in_one_line() -> None:
    model, _ = made("mlp")
    for device in ("cpu", "meta"):
        wrong = (torch.zeros(3, 5, device=device),)
        with pytest.raises(ConfigError, match=r"^Sequential does not run on the example inputs: at _0: ") as caught:
            analyse(trace(model, wrong), wrong)
        assert "\n" not in str(caught.value)


def test_constants_that_are_no_parameters_do_not_stop_the_analysis() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.plain = nn.Linear(4, 4), torch.ones(4)
            self.register_buffer("passing", torch.ones(4), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.linear(x + self.plain) + self.passing + torch.arange(4)
            return out

    model, x = Shifted(), torch.randn(2, 4)
    traced = trace(model, (x,))
    found = analyse(traced, (x,))
    assert found.flops == 2 * 2 * 16
    assert not found.notes
    assert not [name for name in vars(model) if "constant" in name], "the tracer's marks are gone"
    assert torch.equal(traced.module(x), model(x))


def test_a_model_of_134_million_parameters_is_analysed_without_values() -> None:
    model, inputs = large_gpt()
    found = analyse(trace(model, inputs), inputs)
    assert found.parameters == 134_601_216
    assert found.flops == 2 * 4 * 512 * (12 * 12 * 768**2 + 12 * 2 * 512 * 768 + 768 * 32_000)
    assert len(find_cuts(found)) == 27


@pytest.mark.soak
def test_a_large_model_takes_little_memory() -> None:
    measured = in_own_process()
    assert measured["peak_bytes"] < 1e9
    assert measured["analysis_seconds"] > 0
