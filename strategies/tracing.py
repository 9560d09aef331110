"""A model as a graph of its own modules: what can be cut is what can be traced, and the rest is said plainly.

The graph is `torch.fx`'s, with torch's own layers as leaves: parameters keep their names, and every party builds the
graph from model code that it installed itself. A graph never travels.
"""

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from privacy.errors import ConfigError

Inputs = tuple[torch.Tensor, ...]

_DECLARE = "Declare its blocks: the names of the submodules that it runs one after another."
_PLAIN = (bool, int, float, str, type(None))
_TOLERANCE = 1e-5
_ONE_AT_A_TIME = threading.RLock()
"""While torch.fx traces, it replaces how modules are called in the whole process; two at once could leave it so."""


@dataclass(frozen=True)
class Trace:
    """A model and its graph; the graph's module shares the model's very parameters, under the model's own names.

    Attributes:
      model: What was traced; in training or in evaluation mode, as it was handed over.
      module: The graph, runnable; its code is the model's for this mode.
      notes: What a person should know about how far the tracing went, a sentence each.
    """

    model: nn.Module
    module: fx.GraphModule
    notes: tuple[str, ...] = ()


def trace(model: nn.Module, inputs: Inputs, *, blocks: Sequence[str] = ()) -> Trace:
    """Traces a model in the mode that it is in.

    A submodule that cannot be traced inside is kept whole, with all others of its class, and a note says so. Other
    threads may run, and trace, models of their own meanwhile.

    Args:
      model: Left as it is.
      inputs: Positional inputs of ``forward``; later parameters of ``forward`` keep their defaults.
      blocks: Names of submodules that the model runs one after another, each once: then nothing is traced.

    Raises: ConfigError: The model's own ``forward`` cannot be traced, or the blocks are not what the model computes.
    """
    if blocks:
        return _declared(model, inputs, tuple(blocks))
    with _ONE_AT_A_TIME:
        module, notes = _traced(model, inputs)
        with _in_mode(model, training=not model.training):
            other, _ = _traced(model, inputs)
    if module.code != other.code:
        mode = "training" if model.training else "evaluation"
        notes.append(f"its code asks for the mode outside of modules: pieces compute as in {mode} whatever their mode")
    return Trace(model, module, tuple(notes))


class _Tracer(fx.Tracer):
    """Torch's own layers and the given classes are leaves; remembers the innermost module that could not be traced."""

    def __init__(self, kept_whole: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._kept_whole = kept_whole
        self._thread = threading.get_ident()
        self.failed: nn.Module | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._kept_whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:  # somebody else's model, which merely runs meanwhile
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or m
            raise


def _traced(model: nn.Module, inputs: Inputs) -> tuple[fx.GraphModule, list[str]]:
    fixed, own = _defaults(model, inputs), set(vars(model))
    kept_whole: tuple[type[nn.Module], ...] = ()
    notes: list[str] = []
    while True:
        tracer = _Tracer(kept_whole)
        try:
            graph = tracer.trace(model, concrete_args=dict(fixed))
        except Exception as error:
            reason = _first_line(error)
            if tracer.failed is None:
                raise ConfigError(f"{type(model).__name__} cannot be traced: {reason}", hint=_DECLARE) from error
            kept_whole += (type(tracer.failed),)
            notes.append(f"{type(tracer.failed).__name__} cannot be traced inside, so it is kept whole: {reason}")
            continue
        _drop_defaults(graph, len(fixed))
        module = fx.GraphModule(model, graph, type(model).__name__)
        for constant in set(vars(model)) - own:  # the tracer leaves what the code made of constants on the model
            delattr(model, constant)
        return module, notes


def _defaults(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """Returns the parameters of ``forward`` that the inputs leave at their defaults."""
    parameters = [
        each
        for each in inspect.signature(model.forward).parameters.values()
        if each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
    ]
    left = parameters[len(inputs) :]
    missing = [each.name for each in left if each.default is each.empty]
    if missing or len(inputs) > len(parameters):
        raise ConfigError(
            f"{type(model).__name__}.forward takes {', '.join(each.name for each in parameters) or 'nothing'};"
            f" the example has {len(inputs)} inputs",
            hint="Give one example tensor for each input, in their order.",
        )
    odd = [each.name for each in left if not isinstance(each.default, _PLAIN)]
    if odd:
        raise ConfigError(
            f"{type(model).__name__}.forward needs an example for {odd[0]}: its default is no plain value"
        )
    return {each.name: each.default for each in left}


def _drop_defaults(graph: fx.Graph, n_fixed: int) -> None:
    """Removes the inputs that have a fixed value, the last ones, with the checks that the tracer put on them."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node in placeholders[len(placeholders) - n_fixed :]:
        checks = [node]
        for check in checks:
            checks += [user for user in check.users if user not in checks]
        for check in reversed(checks):
            graph.erase_node(check)


def _declared(model: nn.Module, inputs: Inputs, blocks: tuple[str, ...]) -> Trace:
    if len(inputs) != 1:
        raise ConfigError(f"declared blocks pass on one tensor, but the example has {len(inputs)} inputs")
    graph = fx.Graph()
    value = graph.placeholder("inputs")
    for index, name in enumerate(blocks):
        if not name or name not in dict(model.named_modules()):
            raise ConfigError(f"{type(model).__name__} has no submodule {name!r}", hint=_DECLARE)
        if any(f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.") for other in blocks[:index]):
            raise ConfigError(f"block {name!r} is declared twice, or within another")
        value = graph.call_module(name, (value,))
    graph.output(value)
    module = fx.GraphModule(model, graph, type(model).__name__)
    return Trace(model, module, ("nothing was traced: its blocks are as declared", *_compare(model, module, inputs)))


def _compare(model: nn.Module, module: nn.Module, inputs: Inputs) -> Iterator[str]:
    """Checks on the example that blocks in a row are the model, where there are values to compare."""
    if any(tensor.is_meta for tensor in (*inputs, *model.parameters(), *model.buffers())):
        yield "without values nobody checked that the blocks in a row compute the model"
        return
    try:
        with _in_mode(model, training=False), torch.no_grad():
            expected, found = model(*inputs), module(*inputs)
        torch.testing.assert_close(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    except Exception as error:
        reason = "other values" if isinstance(error, AssertionError) else _first_line(error)
        raise ConfigError(
            f"the declared blocks in a row do not compute {type(model).__name__}: {reason}", hint=_DECLARE
        ) from error


@contextmanager
def _in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Puts a model into a mode, and every submodule back into its own afterwards."""
    modes = {each: each.training for each in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:160]
