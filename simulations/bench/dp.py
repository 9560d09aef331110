"""``python -m simulations.bench.dp``: what one private step costs beside one without privacy, on two networks.

A step is forward, backward, gradients for the optimiser and SGD, on one batch that is already drawn; sampling and
accounting are left out. CPU time of this process on one thread, all ways in turns, ratios of medians; nothing here
passes or fails.
"""

import argparse
import copy
import json
import os
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clients.clipping import Clipping
from clients.training import integer_sum, opacus_model, per_record_gradients, set_gradients
from privacy.dp.mechanism import GRID, RoundedGaussianSum

SCHEMA = "collegium/bench-dp/v1"
N_CLASSES = 10
MECHANISM = RoundedGaussianSum(clip=1.0, noise_multiplier=Decimal(1))
_SHORTENED = MECHANISM.clip * (1.0 - 2.0**-20)  # what `clients.clipping` shortens to

Step = Callable[[], object]


def mlp() -> nn.Module:
    """Returns the network of 235,146 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, N_CLASSES)
    )


def cnn() -> nn.Module:
    """Returns the network of 11,274 parameters."""
    first, second = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 16, 5, padding=2)
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        first, nn.ReLU(), pool, second, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(784, N_CLASSES)
    )


MODELS = {"MLP": mlp, "CNN": cnn}
BARS = {
    ("MLP", "clipped"): 1.7,
    ("CNN", "clipped"): 1.5,
    ("MLP", "clipped, float noise"): 2.8,
    ("CNN", "clipped, float noise"): 1.7,
}
_EQUAL = 1e-6


@dataclass(frozen=True)
class Sizes:
    """What is run: batch sizes; turns, and steps a turn, of the cheap ways and of those that form every gradient."""

    batches: tuple[int, ...]
    turns: int
    steps: int
    dear_turns: int


FULL = Sizes(batches=(64, 256), turns=31, steps=10, dear_turns=3)
QUICK = Sizes(batches=(4,), turns=1, steps=1, dear_turns=1)


@dataclass(frozen=True)
class Row:
    """One way to take a step on one network: its cost as a multiple of a step without privacy, and its exactness.

    Attributes:
      ratio: Of medians; ``low`` and ``high`` are those of single turns.
      ms: Median CPU time of a step.
      bar: Largest ratio wanted, or ``None``.
      off_by: Distance of the clipped sum from the float64 one, relative, or ``None``: noise was added.
    """

    model: str
    batch: int
    way: str
    ratio: float
    low: float
    high: float
    ms: float
    bar: float | None
    off_by: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the row is within its bars; ``None`` where it has none."""
        bound = self.bar is None or self.ratio <= self.bar
        return None if self.bar is None else bound and (self.off_by is None or self.off_by <= _EQUAL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-dp.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, says nothing about speed")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    load = [os.getloadavg()]
    rows = list(_measures(QUICK if chosen.quick else FULL))
    load.append(os.getloadavg())
    machine = {"processors": os.cpu_count(), "python": platform.python_version(), "load": load}
    machine |= {name: version(name) for name in ("torch", "opacus", "numpy", "cryptography")}
    listed = [{**asdict(row), "holds": None if chosen.quick else row.holds} for row in rows]
    result = {"schema": SCHEMA, "quick": chosen.quick, "machine": machine, "rows": listed}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _show(rows, quick=chosen.quick)
    sys.stdout.write(f"written: {chosen.out}\n")


def _measures(sizes: Sizes) -> Iterator[Row]:
    for name, build in MODELS.items():
        for batch in sizes.batches:
            trial = Trial.of(build(), batch)
            plain, *cheap = _in_turns((trial.plain, *trial.cheap.values()), sizes.turns, sizes.steps)
            plain_again, *dear = _in_turns((trial.plain, *trial.dear.values()), sizes.dear_turns, 1)
            yield _row(name, batch, "not private", plain, plain, None)
            for way, found in zip(trial.cheap, cheap, strict=True):
                yield _row(name, batch, way, found, plain, trial.off_by(way))
            for way, found in zip(trial.dear, dear, strict=True):
                yield _row(name, batch, way, found, plain_again, trial.off_by(way))


@dataclass(frozen=True)
class Trial:
    """One network, one batch, and the ways to take a step on it."""

    model: nn.Module
    clipping: Clipping
    wrapped: nn.Module
    inputs: Tensor
    labels: Tensor
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, model: nn.Module, batch: int) -> "Trial":
        """Draws a batch of pictures that mean nothing."""
        generator = torch.Generator().manual_seed(batch)
        inputs = torch.randn(batch, 1, 28, 28, generator=generator)
        labels = torch.randint(0, N_CLASSES, (batch,), generator=generator)
        # A step of size zero: every turn does the same work on the same numbers.
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        wrapped = opacus_model(copy.deepcopy(model))
        return cls(model, Clipping(model, losses), wrapped, inputs, labels, optimizer)

    @property
    def cheap(self) -> dict[str, Step]:
        """The float path, and exact noise on its sum."""
        return {
            "clipped": lambda: self._step(self._clipped),
            "clipped, float noise": lambda: self._step(self._noisy),
            "clipped, exact noise": lambda: self._step(self._exactly_noisy),
        }

    @property
    def dear(self) -> dict[str, Step]:
        """The ways that form every record's whole gradient."""
        return {
            "clipped by Opacus' hooks": lambda: self._step(self._by_opacus),
            "integer path": lambda: self._step(self._by_integers),
        }

    def plain(self) -> None:
        """Takes a step without privacy."""
        self.optimizer.zero_grad(set_to_none=True)
        cross_entropy(self.model(self.inputs), self.labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def off_by(self, way: str) -> float | None:
        """Returns how far a way's clipped mean lies from float64 autograd, record by record, relative."""
        means = {"clipped": self._clipped, "clipped by Opacus' hooks": self._by_opacus}
        if way not in means:
            return None
        found = means[way]().double()
        expected = self._reference()
        return float((found - expected).norm() / expected.norm())

    def _step(self, mean: Callable[[], Tensor]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        set_gradients(list(self.model.parameters()), mean())
        self.optimizer.step()

    def _clipped(self) -> Tensor:
        share = 1.0 / len(self.labels)
        return self.clipping.sum(self.inputs, self.labels, clip=MECHANISM.clip, share=share)

    def _noisy(self) -> Tensor:
        return self.clipping.noisy_mean(
            (self.inputs, self.labels, None),
            clip=MECHANISM.clip,
            noise_multiplier=float(MECHANISM.noise_multiplier),
            denominator=len(self.labels),
            entropy=secrets.token_bytes,
        )

    def _exactly_noisy(self) -> Tensor:
        units = self._clipped().numpy() * (len(self.labels) * GRID / MECHANISM.clip)
        return self._exact(np.rint(units).astype(np.int64))

    def _by_opacus(self) -> Tensor:
        per_record = per_record_gradients(self.wrapped, losses, self.inputs, self.labels)
        norms = torch.stack([each.flatten(1).norm(dim=1) for each in per_record]).norm(dim=0)
        factors = (_SHORTENED / norms).clamp(max=1.0) / len(self.labels)
        return torch.cat([torch.einsum("b,b...->...", factors, each).flatten() for each in per_record])

    def _by_integers(self) -> Tensor:
        return self._exact(integer_sum(self.model, losses, (self.inputs, self.labels, None), MECHANISM))

    def _exact(self, total: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(MECHANISM.add_noise(total, secrets.token_bytes) / len(self.labels)).float()

    def _reference(self) -> Tensor:
        model = copy.deepcopy(self.model).double()
        parameters = list(model.parameters())
        total = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=torch.float64)
        for x, y in zip(self.inputs.double(), self.labels, strict=True):
            loss = cross_entropy(model(x[None]), y[None])
            gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
            total += gradient * min(1.0, _SHORTENED / float(gradient.norm()))
        return total / len(self.labels)


def losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy of each record, shape ``(b,)``."""
    return cross_entropy(outputs, labels, reduction="none")


def _in_turns(ways: Sequence[Step], turns: int, steps: int) -> list[list[float]]:
    """Returns CPU seconds of a step by turn; in a turn every way takes its steps once, after one that is not timed."""
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(turns):
        for way, times in zip(ways, found, strict=True):
            way()
            start = time.process_time()
            for _ in range(steps):
                way()
            times.append((time.process_time() - start) / steps)
    return found


def _row(model: str, batch: int, way: str, found: Sequence[float], plain: Sequence[float], off_by: float | None) -> Row:
    ratios = [a / b for a, b in zip(found, plain, strict=True)]
    median = statistics.median(found)
    ratio, bar = median / statistics.median(plain), BARS.get((model, way))
    row = Row(model, batch, way, ratio, min(ratios), max(ratios), 1e3 * median, bar, off_by)
    sys.stderr.write(f"{model}, {batch} records, {way}: {ratio:.2f}\n")
    return row


def _show(rows: Sequence[Row], *, quick: bool) -> None:
    title = "a private step, as a multiple of one without privacy"
    table = Table("network", "way", "ratio (turns)", "bar", "off by", "holds", title=title, title_justify="left")
    for row in rows:
        table.add_row(
            f"{row.model}, {row.batch}",
            row.way,
            f"{row.ratio:.2f} ({row.low:.2f} - {row.high:.2f})",
            "" if row.bar is None else f"<= {row.bar:g}",
            "" if row.off_by is None else f"{row.off_by:.0e}",
            "-" if quick or row.holds is None else ("yes" if row.holds else "no"),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
