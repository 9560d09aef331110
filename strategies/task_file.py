"""Reading a task out of a TOML document: strict, pure, every message with the place in the file.

A misspelt key must not fall back to a default in silence: with it a range, a clip or a clamp would be other than
agreed. So every table is read through `StrictTable`, where each key is taken once and what is left over is an error.
"""

import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeGuard

from privacy.audit.canonical import is_plain
from privacy.errors import ConfigError
from strategies.registry import build
from strategies.task import Feature, ModelSpec, Reference, Target, Task, Training

TASK_KEYS = frozenset({"features", "metric", "model", "patient", "scaling", "strategies", "target", "training"})
"""The keys of a document that `parse_task` reads."""

_HINT = "The keys and what they mean: docs/how-to-own-data.md."

LARGEST_WHOLE = 2**53 - 1
"""Above it neither a cell nor canonical JSON tells a whole number from the next."""

Scalar = float | str


class StrictTable:
    """One table of a TOML document while it is being read; `close` refuses the keys that nobody took.

    Attributes:
      where: Place in the document, such as ``clinics.toml: features[2]``.
    """

    def __init__(self, data: object, where: str) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise self.error("", "must be a table")
        self._left: dict[str, object] = dict(data)
        self._known: list[str] = []

    def error(self, key: str, problem: str, *, hint: str = _HINT) -> ConfigError:
        """Returns the error to raise: place, key and problem in one line."""
        place = self._at(key).removesuffix(": ") or "the document"
        return ConfigError(f"{place}: {problem}", hint=hint)

    def __contains__(self, key: str) -> bool:
        self._known.append(key)
        return key in self._left

    def close(self) -> None:
        """Ends the reading of this table.

        Raises: ConfigError: A key that nobody asked for.
        """
        for key in self._left:
            close = difflib.get_close_matches(key, self._known, n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(sorted(set(self._known)))}."
            raise self.error(key, "unknown key", hint=meant)

    def text(self, key: str, default: str | None = None) -> str:
        """Takes a string that is not empty, unless the default is."""
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"must be text, not {value!r}")
        if not value.strip() and default != "":
            raise self.error(key, "must not be empty")
        return self._plain(key, value.strip())

    def choice(self, key: str, options: Sequence[str], default: str | None = None) -> str:
        """Takes one of a few strings."""
        value = self.text(key, default)
        if value not in options:
            raise self.error(key, f"{value!r} is not one of: {', '.join(options)}")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = -math.inf) -> float:
        """Takes a finite number greater than ``above``."""
        value = self._take(key, default)
        if not is_number(value):
            raise self.error(key, f"must be a finite number, not {value!r}")
        if value <= above:
            raise self.error(key, f"must be greater than {above:g}, not {value:g}")
        return float(value)

    def whole(self, key: str, default: int | None = None, *, least: int = 0, most: int = LARGEST_WHOLE) -> int:
        """Takes a whole number from ``least`` to ``most``."""
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"must be a whole number, not {value!r}")
        if value < least:
            raise self.error(key, f"must be at least {least}, not {value}")
        if value > most:
            raise self.error(key, f"must be at most {most}, not {value}")
        return value

    def sizes(self, key: str) -> tuple[int, ...]:
        """Takes a whole number of at least 1, or a list of such."""
        value = self._take(key, None)
        values = value if isinstance(value, list | tuple) else [value]
        sizes = tuple(size for size in values if isinstance(size, int) and not isinstance(size, bool) and size > 0)
        if not values or len(sizes) < len(values):
            raise self.error(key, f"must be a whole number of at least 1, or a list of such, not {value!r}")
        return sizes

    def flag(self, key: str) -> bool:
        """Takes ``true`` or ``false``; an absent key is false."""
        value = self._take(key, False)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {value!r}")
        return value

    def scalars(self, key: str) -> tuple[Scalar, ...]:
        """Takes a list of different finite numbers and strings; an absent key is an empty list."""
        values = self._list(key, default=())
        for value in values:
            if not is_scalar(value):
                raise self.error(key, f"must hold finite numbers or text, not {value!r}")
        read = [self._plain(key, value.strip()) if isinstance(value, str) else value for value in values]
        scalars = tuple(value for value in read if is_scalar(value))
        if len(set(scalars)) < len(scalars):
            raise self.error(key, "holds a value twice")
        return scalars

    def texts(self, key: str) -> tuple[str, ...]:
        """Takes a list of different strings, none empty; an absent key is an empty list."""
        values = self.scalars(key)
        texts = tuple(value for value in values if isinstance(value, str) and value)
        if len(texts) < len(values):
            raise self.error(key, "must hold text that is not empty")
        return texts

    def interval(self, key: str) -> tuple[float, float]:
        """Takes ``[low, high]`` with low below high."""
        values = self._list(key)
        if len(values) != 2 or not is_number(values[0]) or not is_number(values[1]):
            raise self.error(key, "must be two finite numbers: [low, high]")
        if values[0] >= values[1]:
            raise self.error(key, f"is empty: {values[0]:g} is not below {values[1]:g}")
        return float(values[0]), float(values[1])

    def table(self, key: str, *, optional: bool = False) -> "StrictTable":
        """Takes a table; an absent optional one is empty."""
        return StrictTable(self._take(key, {} if optional else None), self._at(key))

    def tables(self, key: str, *, optional: bool = False) -> list["StrictTable"]:
        """Takes a list of tables with at least one entry, unless optional."""
        values = self._list(key, default=() if optional else None)
        if not values and not optional:
            raise self.error(key, "must have at least one entry")
        return [StrictTable(value, f"{self._at(key)}[{index}]") for index, value in enumerate(values)]

    def rest(self) -> dict[str, "StrictTable"]:
        """Takes everything left as tables by name."""
        return {key: self.table(key) for key in list(self._left)}

    def numbers(self, *, positive: Sequence[str] = ()) -> dict[str, float]:
        """Takes everything left as numbers by name, those in ``positive`` greater than 0."""
        return {key: self.number(key, above=0.0 if key in positive else -math.inf) for key in list(self._left)}

    def _take(self, key: str, default: object) -> object:
        self._known.append(key)
        if key in self._left:
            return self._left.pop(key)
        if default is None:
            raise self.error(key, "is missing")
        return default

    def _plain(self, key: str, text: str) -> str:
        """Returns a text that a report may hold, line by line: refused here, not when a run that is over is signed."""
        if not is_plain(text.replace("\n", " ")):
            raise self.error(key, f"has a character that cannot be seen: {text!r}")
        return text

    def _list(self, key: str, default: Sequence[object] | None = None) -> Sequence[object]:
        values = self._take(key, default)
        if not isinstance(values, list | tuple):
            raise self.error(key, f"must be a list, not {values!r}")
        return values

    def _at(self, key: str) -> str:
        if not self.where or not key:
            return self.where or key
        # "file.toml: " ends the name of the document; inside it, places are joined by dots.
        return f"{self.where}{key}" if self.where.endswith(": ") else f"{self.where}.{key}"


def is_number(value: object) -> TypeGuard[float]:
    """Whether a TOML value is a finite number; a truth value is none, although Python counts it as one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_scalar(value: object) -> TypeGuard[Scalar]:
    """Whether a TOML value is a string or a finite number, a whole one small enough to be told from its neighbours."""
    return isinstance(value, str) or (is_number(value) and not (isinstance(value, int) and abs(value) > LARGEST_WHOLE))


def parse_task(data: Mapping[str, object], *, where: str = "") -> Task:
    """Reads the task part of a document.

    Args:
      data: The document, or at least its keys in `TASK_KEYS`. Public.
      where: Prefix of messages, such as ``"clinics.toml: "``.

    Returns: The task; everything that can be checked without data has been.
    Raises: ConfigError: Anything missing, misspelt, of a wrong type, empty, contradictory or not finite.
    """
    table = StrictTable(data, where)
    scaling: Literal["public", "own"] = (
        "own" if table.choice("scaling", ("public", "own"), "public") == "own" else "public"
    )
    target = _target(table.table("target"))
    entries = [_features(entry, scaling) for entry in table.tables("features")]
    _refuse_double_names(table, entries, target)
    features = tuple(feature for entry in entries for feature in entry)
    strategies = table.table("strategies", optional=True).rest()
    task = Task(
        features=features,
        target=target,
        model=_model(table.table("model"), target, sum(feature.width for feature in features)),
        training=_training(table.table("training")),
        metric=_metric(table, target),
        strategy_settings={name: _strategy(table, name, given) for name, given in strategies.items()},
        scaling=scaling,
        patient=_patient(table, features, target),
    )
    table.close()
    return task


def _patient(table: StrictTable, features: tuple[Feature, ...], target: Target) -> str:
    name = table.text("patient", "")
    if name in {target.name, *(feature.name for feature in features)}:
        raise table.error("patient", f"{name!r} is a feature or the target, which cannot tell patients apart")
    return name


def _metric(table: StrictTable, target: Target) -> Literal["accuracy", "auc"]:
    if table.choice("metric", ("accuracy", "auc"), "accuracy") == "accuracy":
        return "accuracy"
    if target.classes > 2:
        raise table.error("metric", "auc is of two classes", hint='Use metric = "accuracy".')
    return "auc"


def _features(table: StrictTable, scaling: str) -> list[Feature]:
    """Returns the features of an entry: one, or with ``count`` one for every number in the place of ``{}``."""
    name = table.text("name")
    kind = table.choice("kind", ("continuous", "binary", "categorical"))
    if "count" not in table:
        return [_feature(table, name, kind, scaling)]
    count = table.whole("count", least=1)
    if kind != "continuous":
        raise table.error("count", f"is for continuous features, and this one is {kind}")
    if name.count("{}") != 1:
        raise table.error("count", "needs {} once in the name, where the number goes", hint='Such as name = "pixel{}".')
    pattern = _feature(table, name, kind, scaling)
    return [replace(pattern, name=name.replace("{}", str(index))) for index in range(count)]


def _feature(table: StrictTable, name: str, kind: str, scaling: str) -> Feature:
    if scaling == "own":
        feature = _own_feature(table, name, kind)
    elif kind == "continuous":
        feature = _continuous(table, name)
    elif kind == "binary":
        feature = Feature(name, "binary", missing=table.scalars("missing"))
    else:
        feature = Feature(name, "categorical", categories=_categories(table), missing=table.scalars("missing"))
    overlap = set(feature.categories) & set(feature.missing)
    if overlap:
        raise table.error("missing", f"{min(overlap, key=str)!r} is a category too")
    table.close()
    return feature


def _own_feature(table: StrictTable, name: str, kind: str) -> Feature:
    """Returns a feature that the site standardises itself; a constant set for it would have no effect."""
    for key in ("range", "centre", "scale", "clamp", "missing"):
        if key in table:
            raise table.error(key, 'has no effect under scaling = "own"', hint="Remove it, or use public scaling.")
    if kind == "continuous":
        return Feature(name, "continuous", low=-math.inf, high=math.inf, centre=0.0, scale=1.0, clamp=math.inf)
    if kind == "binary":
        return Feature(name, "binary")
    return Feature(name, "categorical", categories=_categories(table))


def _continuous(table: StrictTable, name: str) -> Feature:
    low, high = table.interval("range")
    centre = table.number("centre", (low + high) / 2)
    scale = table.number("scale", (high - low) / 2, above=0.0)
    clamp = table.number("clamp", 3.0, above=0.0)
    missing = table.scalars("missing")
    return Feature(name, "continuous", low, high, centre, scale, clamp, missing=missing)


def _categories(table: StrictTable) -> tuple[Scalar, ...]:
    categories = table.scalars("categories")
    if len(categories) < 2:
        raise table.error("categories", "must list at least two values")
    if len({isinstance(category, str) for category in categories}) > 1:
        raise table.error("categories", "must be all numbers or all text")
    return categories


def _target(table: StrictTable) -> Target:
    name = table.text("name")
    if "classes" in table:
        if "threshold" in table:
            raise table.error("threshold", "parts two classes, and classes gives more", hint="Remove one of the two.")
        # Of two classes there is one logit and a threshold; a third word for that would say nothing new.
        target = Target(name, classes=table.whole("classes", least=3))
    else:
        target = Target(name, table.number("threshold", 0.0))
    table.close()
    return target


def _refuse_double_names(table: StrictTable, entries: Sequence[Sequence[Feature]], target: Target) -> None:
    seen: set[str] = set()
    for index, name in ((index, feature.name) for index, entry in enumerate(entries) for feature in entry):
        if name in seen:
            raise table.error(f"features[{index}].name", f"{name!r} is there twice")
        if name == target.name:
            raise table.error(f"features[{index}].name", f"{name!r} is the target, which is not to be an input")
        seen.add(name)


def _model(table: StrictTable, target: Target, n_inputs: int) -> ModelSpec:
    kind = table.choice("kind", ("logistic", "mlp", "cnn"))
    outputs = 1 if target.classes == 2 else target.classes
    if kind == "logistic":
        init = table.choice("init", ("zero", "torch"), "zero")
        model = ModelSpec("logistic", init="torch" if init == "torch" else "zero", outputs=outputs)
    else:
        # All hidden units of a zero network stay equal for ever, so there is no other start to offer.
        table.choice("init", ("torch",), "torch")
        exits = table.flag("exits")
        if kind == "mlp":
            model = ModelSpec("mlp", table.sizes("hidden"), "torch", exits, outputs=outputs)
        else:
            model = ModelSpec("cnn", table.sizes("channels"), "torch", exits, _image(table), outputs)
    table.close()
    try:
        model.check(n_inputs)
    except ConfigError as error:
        raise table.error("", str(error), hint=error.hint) from None
    return model


def _image(table: StrictTable) -> tuple[int, int, int]:
    image = table.sizes("image")
    if len(image) != 3:
        raise table.error("image", "must be three whole numbers: [channels, height, width]")
    return image


def _training(table: StrictTable) -> Training:
    training = Training(
        rounds=table.whole("rounds", least=1),
        local_steps=table.whole("local_steps", 1, least=1),
        learning_rate=table.number("learning_rate", above=0.0),
        batch=table.whole("batch", 0),
        clip=table.number("clip", 1.0, above=0.0),
        update_clip=table.number("update_clip", 1.0, above=0.0),
        retries=table.whole("retries", 2),
        optimizer=_optimizer(table),
        reference=_reference(table.table("reference")) if "reference" in table else None,
    )
    table.close()
    return training


def _reference(table: StrictTable) -> Reference:
    reference = Reference(
        epochs=table.whole("epochs", least=1),
        learning_rate=table.number("learning_rate", above=0.0),
        batch=table.whole("batch", 0),
        optimizer=_optimizer(table),
    )
    table.close()
    return reference


def _optimizer(table: StrictTable) -> Literal["sgd", "adam"]:
    return "adam" if table.choice("optimizer", ("sgd", "adam"), "sgd") == "adam" else "sgd"


def _strategy(table: StrictTable, name: str, settings: StrictTable) -> dict[str, float]:
    numbers = settings.numbers(positive=("learning_rate",))
    try:
        build(name, {key: value for key, value in numbers.items() if key != "learning_rate"})
    except ConfigError as error:
        raise table.error(f"strategies.{name}", str(error), hint=error.hint) from None
    return numbers
