"""The model that a party installed itself, and the pieces of it that a plan may ask for.

Names and a digest come from others, code never: a plan made of other model code is refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from strategies import own_model
from strategies.chain_job import FEW_RECORDS
from strategies.chain_plan import StageSpec
from strategies.cuts import Piece, build
from strategies.models import build as build_model
from strategies.study import Study
from strategies.tracing import Inputs, Trace, trace


@dataclass(frozen=True)
class Installed:
    """A model of this party.

    Attributes:
      name: For people.
      make: From a seed of the initial parameters to the module and an example of its inputs.
      blocks: As in `strategies.tracing.trace`.
    """

    name: str
    make: Callable[[int], tuple[nn.Module, Inputs]]
    blocks: tuple[str, ...] = ()

    @classmethod
    def of_study(cls, study: Study) -> "Installed":
        """The model of a study, with the parameters that every party of a run starts from."""

        def make(seed: int) -> tuple[nn.Module, Inputs]:
            task = study.task
            return build_model(task.model, task.n_inputs, seed), (torch.zeros(FEW_RECORDS, task.n_inputs),)

        return cls(f"the study {study.name}", make)

    @classmethod
    def of_factory(cls, name: str, blocks: Sequence[str] = ()) -> "Installed":
        """What ``module:factory`` returns, with the parameters that it comes with, whatever the seed.

        Raises: ConfigError: There is no such function.
        """
        function = own_model.factory(name)
        return cls(name, lambda _seed: own_model.made(name, function), tuple(blocks))

    def traced(self, seed: int, *, train: bool) -> tuple[Trace, Inputs]:
        """Builds the model afresh. Raises: ConfigError: It fails, or cannot be traced."""
        module, inputs = self.make(seed)
        module.train(train)
        return trace(module, inputs, blocks=self.blocks), inputs

    def piece(self, stage: StageSpec, seed: int, *, train: bool) -> fx.GraphModule:
        """Builds a stage's piece afresh, in training or in evaluation mode.

        Raises: ConfigError: The model has no such part.
          VerificationError: The part of this party's model is another one than the plan's.
        """
        traced, _ = self.traced(seed, train=train)
        return build(traced, Piece(stage.start, stage.end, stage.keys, stage.digest))
