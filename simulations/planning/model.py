"""The model that `collegium plan` looks at: a scenario's, or what a person's own ``module:factory`` returns."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from privacy.errors import ConfigError
from simulations.members import data_home
from simulations.planning.sample import Sample, of_model, of_scenario
from simulations.scenario import load, names
from strategies.analysis import Analysis, analyse
from strategies.models import build
from strategies.own_model import factory, made
from strategies.task import Training
from strategies.tracing import Inputs, trace

_FEW_RECORDS = 32  # of a scenario that trains on all its records at once, and does not say how many they are


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
        function = factory(name)
        if not blocks:  # blocks are compared with the model, which takes values
            try:
                return _analysed(*made(name, function, meta=True), train=train, blocks=blocks), "adam"
            except ConfigError:
                pass  # its code may want values; then it fails again below, or it was that
        return _analysed(*made(name, function, meta=False), train=train, blocks=blocks), "adam"
    if not name.endswith(".toml") and name not in names():
        known = ", ".join(names())
        raise ConfigError(
            f"there is no scenario {name!r}",
            hint=f"There are: {known}; or give module:factory for a model of your own.",
        )
    scenario = load(name)
    task, batch = scenario.task, scenario.task.training.batch or scenario.rows_per_site
    inputs = (torch.zeros(batch or _FEW_RECORDS, task.n_inputs),)
    analysis = _analysed(build(task.model, task.n_inputs, seed=0), inputs, train=train, blocks=blocks)
    if train and not batch:
        note = (
            f"it trains on all records of a site at once; memory and times are for {_FEW_RECORDS}, and grow with them"
        )
        analysis = replace(analysis, notes=(*analysis.notes, note))
    return analysis, task.training.optimizer


def with_records(name: str, *, train: bool, blocks: Sequence[str]) -> tuple[Analysis, Sample, Training]:
    """Builds a model again, with weights, to attack it: the records to do it on, and how it would be trained.

    Args: As of `analysed`.
    Raises: ConfigError: As `analysed`; or there are no records for such a model.
    """
    if ":" in name and not name.endswith(".toml"):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # a factory's weights are random: the same ones every time
            module, inputs = made(name, factory(name))
        analysis = _analysed(module, inputs, train=train, blocks=blocks)
        usual = Training(rounds=1, local_steps=1, learning_rate=0.001, batch=analysis.records, optimizer="adam")
        return analysis, of_model(analysis, inputs), usual
    scenario = load(name)
    task = scenario.task
    training = replace(task.training, batch=task.training.batch or _FEW_RECORDS)
    module = build(task.model, task.n_inputs, seed=0)
    analysis = _analysed(module, (torch.zeros(training.batch, task.n_inputs),), train=train, blocks=blocks)
    return analysis, of_scenario(scenario, data_home()), training


def _analysed(module: nn.Module, inputs: Inputs, *, train: bool, blocks: Sequence[str]) -> Analysis:
    module.train(train)
    return analyse(trace(module, inputs, blocks=blocks), inputs)
