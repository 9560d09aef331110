"""Replaces production code while a red run lasts, wherever it is used, and puts it back."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_PACKAGES = ("privacy", "strategies", "server", "clients", "simulations")
_KIT = "simulations.red."


@contextmanager
def swapped(original: Callable[..., Any], other: Callable[..., Any]) -> Iterator[None]:
    """Replaces a function in every module of this project that has it, but for the kit's own."""
    places = [(module, name) for module in _modules() for name, value in vars(module).items() if value is original]
    for module, name in places:
        setattr(module, name, other)
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, original)


@contextmanager
def wrapped(owner: type, name: str, around: Callable[[Any], Callable[..., Any]]) -> Iterator[None]:
    """Replaces a method by what ``around`` makes of it."""
    original = owner.__dict__[name]
    setattr(owner, name, around(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _modules() -> list[ModuleType]:
    ours = [name for name in sys.modules if name.split(".")[0] in _PACKAGES and not name.startswith(_KIT)]
    return [sys.modules[name] for name in ours]
