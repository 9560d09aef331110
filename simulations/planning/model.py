"""The model that `collegium plan` looks at: a scenario's, or what a person's own ``module:factory`` returns."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from privacy.errors import ConfigError
from simulations.scenario import load, names
from strategies.analysis import Analysis, analyse
from strategies.models import build
from strategies.tracing import Inputs, trace

_HINT = "A factory takes no arguments and returns (module, example_inputs): docs/how-to-plan.md."
_FEW_RECORDS = 32  # of a scenario that trains on all its records at once


def analysed(name: str, *, train: bool, blocks: Sequence[str]) -> tuple[Analysis, str]:
    """Builds and analyses a model.

    Args:
      name: A scenario, or ``module:factory``; the module is looked for in the working folder first.
      train: Whether it is put into training mode.
      blocks: As in `strategies.tracing.trace`.

    Returns: The analysis, and the optimiser that the scenario trains with (Adam for other models).
    Raises: ConfigError: There is no such model, it fails, or it cannot be analysed.
    """
    if ":" in name and not name.endswith(".toml"):
        factory = _factory(name)
        if not blocks:  # blocks are compared with the model, which takes values
            try:
                return _analysed(*_made(name, factory, meta=True), train=train, blocks=blocks), "adam"
            except ConfigError:
                pass  # its code may want values; then it fails again below, or it was that
        return _analysed(*_made(name, factory, meta=False), train=train, blocks=blocks), "adam"
    if not name.endswith(".toml") and name not in names():
        known = ", ".join(names())
        raise ConfigError(
            f"there is no scenario {name!r}",
            hint=f"There are: {known}; or give module:factory for a model of your own.",
        )
    task = load(name).task
    inputs = (torch.zeros(task.training.batch or _FEW_RECORDS, task.n_inputs),)
    module = build(task.model, task.n_inputs, seed=0)
    return _analysed(module, inputs, train=train, blocks=blocks), task.training.optimizer


def _analysed(module: nn.Module, inputs: Inputs, *, train: bool, blocks: Sequence[str]) -> Analysis:
    module.train(train)
    return analyse(trace(module, inputs, blocks=blocks), inputs)


def _factory(name: str) -> Callable[[], Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{name!r} is not module:factory", hint=_HINT)
    with _working_folder_first():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise ConfigError(f"there is no module {error.name!r} here", hint=_HINT) from error
            raise _failed(module_name, error) from error
        except Exception as error:
            raise _failed(module_name, error) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(f"{module_name} has no function {attribute!r}", hint=_HINT)
    called: Callable[[], Any] = factory
    return called


def _made(name: str, factory: Callable[[], Any], *, meta: bool) -> tuple[nn.Module, Inputs]:
    try:
        with _working_folder_first(), torch.device("meta" if meta else "cpu"):
            made = factory()
    except Exception as error:
        raise _failed(name, error) from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ConfigError(f"{name} returned {_described(made)}, not (module, example_inputs)", hint=_HINT)
    module, inputs = made
    inputs = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    if not isinstance(inputs, tuple | list) or not all(isinstance(each, torch.Tensor) for each in inputs):
        raise ConfigError(f"{name}: the example inputs must be tensors, not {_described(inputs)}", hint=_HINT)
    return module, tuple(inputs)


def _described(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of ({', '.join(type(each).__name__ for each in value)})"
    return type(value).__name__


def _failed(name: str, error: Exception) -> ConfigError:
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return ConfigError(f"{name} fails: {type(error).__name__}: {first}", hint=_HINT)


@contextmanager
def _working_folder_first() -> Iterator[None]:
    """An installed command does not find modules beside which it is run; a person means those."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
