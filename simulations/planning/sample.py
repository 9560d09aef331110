"""Records to measure leakage on: a public data set, or made-up ones. Nobody's own rows are read for it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from clients.records import Records
from privacy.errors import ConfigError
from simulations.audit.made_up_record import Scale, drawn
from simulations.data.datasets import load_sites, pooled_training
from simulations.scenario import Scenario
from strategies.analysis import Analysis
from strategies.task import Task
from strategies.tracing import Inputs

_TRAIN, _HELD_OUT = 4000, 500  # of public records, at most
_MADE_UP, _FEWEST, _MOST_NUMBERS = 2500, 200, 2**26
_FACTORS, _OWN_NOISE = 32, 0.1
_SEED = 0  # of made-up records, and of the choice among public ones


@dataclass(frozen=True, eq=False)
class Sample:
    """Records; public.

    Attributes:
      train: What the model is trained on, and what an attacker has of its own.
      held_out: What is attacked; nobody learnt from these.
      shape: Of one record as the model takes it; ``Records`` holds it flat.
      provenance: Where the records come from, one clause.
    """

    train: Records
    held_out: Records
    shape: tuple[int, ...]
    provenance: str


def of_scenario(scenario: Scenario, data_home: Path | None) -> Sample:
    """Returns records of the public data set, all sites in one place; made-up ones for a study with files of its own.

    Raises: ConfigError: The public data set is not at hand.
    """
    if scenario.origin == "files":
        train, held_out = _made_up(scenario.task)
        return Sample(train, held_out, (scenario.task.n_inputs,), "made up within the study's ranges: nobody's rows")
    sites = load_sites(scenario, data_home)
    tests = [site.test for site in sites]
    held_out = Records(np.concatenate([each.x for each in tests]), np.concatenate([each.y for each in tests]))
    return Sample(
        _some(pooled_training(sites), _TRAIN),
        _some(held_out, _HELD_OUT),
        (scenario.task.n_inputs,),
        f"{scenario.owner}; public, {scenario.licence}",
    )


def of_model(analysis: Analysis, inputs: Inputs) -> Sample:
    """Returns Gaussian records of the shape that a model takes.

    Raises: ConfigError: It takes something else than one tensor of floating-point numbers a record, or does not return
      one row of logits a record.
    """
    if len(inputs) != 1 or not inputs[0].is_floating_point() or inputs[0].dim() < 2:
        raise ConfigError(
            "leakage can only be measured for one input of floating-point numbers, a record a row",
            hint="Leave --leakage out for this model.",
        )
    outputs = _outputs(analysis, inputs)
    shape = tuple(inputs[0].shape[1:])
    size, rng = int(np.prod(shape)), np.random.default_rng(_SEED)
    # Independent numbers could not be rebuilt from fewer; pictures and tables can, since they have less to tell.
    mixed = rng.standard_normal((_FACTORS, size)) / np.sqrt(_FACTORS)

    def gaussian(n: int) -> npt.NDArray[np.float64]:
        shared = rng.standard_normal((n, _FACTORS)) @ mixed
        return np.asarray(shared + _OWN_NOISE * rng.standard_normal((n, size)), np.float64)

    n_records = min(_MADE_UP, max(_MOST_NUMBERS // size, _FEWEST))
    train, held_out = _labelled(gaussian(n_records), outputs, rng)
    return Sample(train, held_out, shape, f"made up, Gaussian with {_FACTORS} factors: real ones may leak more")


def _outputs(analysis: Analysis, inputs: Inputs) -> int:
    model, was_training = analysis.trace.model, analysis.trace.model.training
    model.eval()  # a look at the outputs must not move the statistics of norms
    with torch.no_grad():
        outputs = analysis.trace.module(*inputs)
    model.train(was_training)
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2:
        raise ConfigError(
            "leakage can only be measured where a record gets one row of logits",
            hint="Leave --leakage out for this model.",
        )
    return int(outputs.shape[1])


def _made_up(task: Task) -> tuple[Records, Records]:
    rng, scale = np.random.default_rng(_SEED), Scale.of(task)
    values = np.stack([drawn(task, rng) for _ in range(_MADE_UP)])
    return _labelled(scale.low + (scale.high - scale.low) * values, task.target.classes, rng)


def _labelled(x: npt.NDArray[np.float64], outputs: int, rng: np.random.Generator) -> tuple[Records, Records]:
    """Returns a sample with labels that a model can learn: the largest of random linear functions."""
    scores = (x - x.mean(axis=0)) @ rng.standard_normal((x.shape[1], max(outputs, 2)))
    records = Records(x.astype(np.float32), scores.argmax(axis=1).astype(np.float32))
    rows, n_held_out = np.arange(len(x)), len(x) // 5
    return records.take(rows[n_held_out:]), records.take(rows[:n_held_out])


def _some(records: Records, most: int) -> Records:
    return records.take(np.random.default_rng(_SEED).permutation(len(records))[:most])
