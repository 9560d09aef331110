"""A model of a person's own: what ``module:factory`` returns, from code that this party installed itself."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from privacy.errors import ConfigError
from strategies.tracing import Inputs

_HINT = "A factory takes no arguments and returns (module, example_inputs): docs/how-to-plan.md."


def factory(name: str) -> Callable[[], Any]:
    """Finds ``module:factory``; the module is looked for in the working folder first. Raises: ConfigError: None."""
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
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ConfigError(f"{module_name} has no function {attribute!r}", hint=_HINT)
    called: Callable[[], Any] = found
    return called


def made(name: str, factory: Callable[[], Any], *, meta: bool = False) -> tuple[nn.Module, Inputs]:
    """Calls a factory.

    Args:
      name: For messages.
      factory: As `factory` found it.
      meta: Whether shapes are enough: then nothing takes memory.

    Raises: ConfigError: It fails, or returns something else than a module and example inputs.
    """
    try:
        with _working_folder_first(), torch.device("meta" if meta else "cpu"):
            result = factory()
    except Exception as error:
        raise _failed(name, error) from error
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], nn.Module)):
        raise ConfigError(f"{name} returned {_described(result)}, not (module, example_inputs)", hint=_HINT)
    module, inputs = result
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
