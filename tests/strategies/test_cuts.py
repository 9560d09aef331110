"""Cuts and pieces of every model of the zoo: they compose to the model, keep its keys, and train as it does."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from privacy.errors import ConfigError, VerificationError
from simulations.bench.plan import Gpt
from strategies.analysis import analyse
from strategies.cuts import Cut, build, find_cuts, split
from strategies.tracing import Inputs, Trace, trace
from tests.strategies.zoo import MODELS, made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for a busy core cost more than these models
    yield
    torch.set_num_threads(before)


SPLITTABLE = [name for name in MODELS if name not in {"tied_gpt", "lstm"}]


def cut_up(name: str, *, training: bool = False) -> tuple[nn.Module, Inputs, Trace, tuple[Cut, ...]]:
    model, inputs = made(name)
    model.train(training)
    traced = trace(model, inputs)
    return model, inputs, traced, find_cuts(analyse(traced, inputs))


def chained(pieces: list[torch.fx.GraphModule], inputs: Inputs) -> torch.Tensor:
    value = pieces[0](*inputs)
    for piece in pieces[1:]:
        value = piece(value)
    found: torch.Tensor = value
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_cuts_pieces_compose_to_the_model_and_part_its_keys(name: str) -> None:
    model, inputs, traced, cuts = cut_up(name)
    expected, keys = model(*inputs), set(model.state_dict())
    assert cuts
    for cut in cuts:
        described = split(traced, [cut], unsafe_shared=True)
        pieces = [build(traced, piece) for piece in described]
        torch.testing.assert_close(chained(pieces, inputs), expected, rtol=1e-5, atol=1e-5)
        held = [set(piece.state_dict()) for piece in pieces]
        assert [set(piece.keys) for piece in described] == held
        assert set.union(*held) == keys
        assert not held[0] & held[1]
        head = sum(parameter.numel() for parameter in pieces[0].parameters())
        if not cut.shared_keys:
            assert head == cut.head_params


@pytest.mark.parametrize("name", MODELS)
def test_the_cuts_are_the_known_ones(name: str) -> None:
    *_, cuts = cut_up(name)
    assert [cut.node for cut in cuts] == MODELS[name][1]


@pytest.mark.parametrize("n_pieces", [2, 3, 4])
@pytest.mark.parametrize("name", [name for name in SPLITTABLE if name not in {"two_inputs", "encoder"}])
def test_gradients_through_pieces_are_exactly_the_models(name: str, n_pieces: int) -> None:
    model, inputs, traced, cuts = cut_up(name, training=True)
    chosen = [cuts[len(cuts) * each // n_pieces] for each in range(1, n_pieces)]
    expected = gradients(model, lambda: model(*inputs).square().mean().backward())
    pieces = [build(traced, piece) for piece in split(traced, chosen)]
    assert len(pieces) == n_pieces
    # Each piece gets values without a history and sends a gradient back: what two processes would do.
    assert_same(gradients(model, lambda: backwards(pieces, inputs)), expected)


@pytest.mark.parametrize("name", ["two_inputs", "encoder"])
def test_gradients_through_all_pieces_of_a_short_model(name: str) -> None:
    model, inputs, traced, cuts = cut_up(name, training=True)
    expected = gradients(model, lambda: model(*inputs).square().mean().backward())
    pieces = [build(traced, piece) for piece in split(traced, cuts)]
    assert len(pieces) == 4
    assert_same(gradients(model, lambda: backwards(pieces, inputs)), expected)


def backwards(pieces: list[torch.fx.GraphModule], inputs: Inputs) -> None:
    received: list[torch.Tensor] = []
    sent = [pieces[0](*inputs)]
    for piece in pieces[1:]:
        received.append(sent[-1].detach().clone().requires_grad_())
        sent.append(piece(received[-1]))
    sent[-1].square().mean().backward()
    for value, source in zip(reversed(sent[:-1]), reversed(received), strict=True):
        value.backward(source.grad)


def gradients(model: nn.Module, run: Callable[[], None]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    run()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    assert found
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_a_piece_shares_the_models_parameters_and_takes_any_batch() -> None:
    model, inputs, traced, cuts = cut_up("resnet")
    front = build(traced, split(traced, [cuts[2]])[0])
    for key, parameter in front.named_parameters():
        assert parameter is model.get_parameter(key)
    assert front(torch.cat([inputs[0]] * 3)).shape[0] == 3 * inputs[0].shape[0]


def test_a_value_that_is_changed_in_place_later_does_not_cross() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    traced = trace(model, (torch.zeros(2, 4),))
    cuts = find_cuts(analyse(traced, (torch.zeros(2, 4),)))
    assert [cut.what for cut in cuts] == ["ReLU"]


def test_tied_weights_are_named_and_such_a_cut_is_refused() -> None:
    _, _, traced, cuts = cut_up("tied_gpt")
    assert {cut.shared_keys for cut in cuts} == {("head.weight", "words.weight")}
    with pytest.raises(ConfigError, match=r"head\.weight, words\.weight on both sides"):
        split(traced, [cuts[0]])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.same, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.same(functional.relu(self.same(x))))
        return out


def test_a_layer_that_runs_on_both_sides_is_shared_too() -> None:
    example = (torch.zeros(2, 4),)
    cuts = find_cuts(analyse(trace(Twice(), example), example))
    assert [cut.shared_keys for cut in cuts] == [("same.bias", "same.weight"), ("same.bias", "same.weight"), ()]


def test_what_travels_is_names_and_a_digest_and_other_code_is_found_out() -> None:
    model, inputs, traced, cuts = cut_up("mlp")
    pieces = split(traced, [cuts[1]])
    assert b"GraphModule" not in pickle.dumps(pieces)
    twin = trace(made("mlp")[0].eval(), inputs)
    assert build(twin, pieces[1]).state_dict().keys() == build(traced, pieces[1]).state_dict().keys()
    others = (
        nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)),
        nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)),
        nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.Dropout(0.3), nn.Linear(16, 3)),
    )
    for other in others:
        with pytest.raises(VerificationError, match="is another one"):
            build(trace(other, inputs), pieces[1])
    with pytest.raises(VerificationError):
        build(traced, replace(pieces[1], digest="0" * 64))
    with pytest.raises(ConfigError, match="no operation 'nowhere'"):
        build(traced, replace(pieces[1], start="nowhere"))
    assert isinstance(model, nn.Sequential)


def test_a_plain_parameter_of_another_shape_is_found_out() -> None:
    models = [Gpt(40, 32, 4, 1, length) for length in (8, 1)]
    inputs = (torch.zeros(2, 1, dtype=torch.long),)
    first, second = (split(trace(model, inputs), [])[0] for model in models)
    assert first.keys == second.keys
    assert first.digest != second.digest


def test_cuts_out_of_order_are_refused() -> None:
    *_, traced, cuts = cut_up("mlp")
    for wrong in ([cuts[1], cuts[0]], [cuts[1], cuts[1]]):
        with pytest.raises(ConfigError, match="order"):
            split(traced, wrong)


def test_a_cut_says_what_it_costs_and_what_shapes_tell_about_leakage() -> None:
    *_, cuts = cut_up("mlp")
    first, last = cuts[0], cuts[-1]
    assert (first.head_flops, first.tail_flops) == (2 * 6 * 12 * 16, 2 * 6 * (16 * 16 + 16 * 3))
    assert (first.head_params, first.head_bytes, first.bytes) == (13 * 16, 4 * 13 * 16, 4 * 6 * 16)
    assert first.tail_bytes == 4 * (17 * 16 + 17 * 3)
    assert first.share == pytest.approx(13 * 16 / (13 * 16 + 17 * 16 + 17 * 3))
    assert "expect them to be recovered" in first.note
    assert last.tail_flops == 2 * 6 * 16 * 3
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Linear(3, 1))
    notes = [cut.note for cut in find_cuts(analyse(trace(narrow, (torch.zeros(2, 12),)), (torch.zeros(2, 12),)))]
    assert notes == ["the inputs, or a fixed function of them", "25 % of the inputs' size: still personal data"]


def test_whole_numbers_and_tuples_do_not_cross() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.last = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            shifted = tokens + 1
            out: torch.Tensor = self.last(self.words(shifted))
            return out

    example = (torch.zeros(2, 3, dtype=torch.long),)
    assert [cut.node for cut in find_cuts(analyse(trace(Tokens(), example), example))] == ["words"]


def test_a_large_model_keeps_its_keys_in_four_pieces() -> None:
    with torch.device("meta"):
        model, inputs = Gpt(1000, 64, 4, 8, 16), (torch.zeros(2, 16, dtype=torch.long),)
    traced = trace(model, inputs)
    cuts = find_cuts(analyse(traced, inputs))
    keys = [set(piece.keys) for piece in split(traced, cuts[2:8:2])]
    assert len(keys) == 4
    assert sum(map(len, keys)) == len(set.union(*keys)) == len(model.state_dict())
