"""Local training, plain or with record-level privacy. The only file that uses Opacus.

Opacus gives gradients per record and nothing else; clipping, noise and the denominator are ours
(``privacy.dp.mechanism``), and so is the count of executions. Opacus' own noise and sampling come from torch's global
generator, that is from ``--seed``: they are not used.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clients.batches import batch_at
from clients.records import Records
from privacy.dp.noise import Entropy, poisson_mask
from privacy.dp.plan import RecordPlan
from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.models import load_vector, to_vector
from strategies.task import SiteId, Training

_root = logging.getLogger()
_logging_as_found = (list(_root.handlers), _root.level)
from opacus.grad_sample import GradSampleModule  # noqa: E402 - see the next line but one
from opacus.validators import ModuleValidator  # noqa: E402

# Opacus configures the root logger when it is imported; what is logged, and where, is the application's affair.
_root.handlers[:], _root.level = _logging_as_found

_CHUNK = 512  # records whose gradients are in memory at once; one noisy step may take several chunks

GradientSource = Callable[[nn.Module, int], None]
"""Fills ``.grad`` of every parameter for one step; the second argument is the step number."""


@dataclass(frozen=True)
class Steps:
    """Which local steps to take and how; all fields are public.

    Attributes:
      first: Number of the first step, counted through all rounds.
      proximal: FedProx's mu; applied after noising.
      drift: Scaffold's ``c - c_i``, shape ``(d,)``, or ``None``.
    """

    training: Training
    first: int
    count: int
    proximal: float = 0.0
    drift: Vector | None = None


def train(model: nn.Module, start: Vector, steps: Steps, gradient: GradientSource) -> Vector:
    """Takes local steps from ``start``.

    Args:
      model: Its parameters are overwritten.
      start: Parameters to begin with, shape ``(d,)``.
      steps: Which steps.
      gradient: Plain or noisy gradients; whatever it reads from private records is its own affair to protect.

    Returns: The parameters after the last step, shape ``(d,)``.
    """
    # OpenMP's thread count is per calling thread; one thread gives the same sums in every engine.
    torch.set_num_threads(1)
    load_vector(model, start)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    anchors = [parameter.detach().clone() for parameter in parameters]
    drifts = _split_like(steps.drift, parameters)
    optimizer = _optimizer(parameters, steps.training)
    for step in range(steps.first, steps.first + steps.count):
        optimizer.zero_grad(set_to_none=True)
        gradient(model, step)
        with torch.no_grad():
            for parameter, anchor, drift in zip(parameters, anchors, drifts, strict=True):
                if parameter.grad is None:
                    raise ConfigError("a parameter of the model takes no part in its output")
                if steps.proximal:
                    parameter.grad.add_(parameter - anchor, alpha=steps.proximal)
                if drift is not None:
                    parameter.grad.add_(drift)
        optimizer.step()
    return to_vector(model)


def plain_gradient(records: Records, training: Training, *, site: SiteId, seed: int) -> GradientSource:
    """Mean gradient of the batch that seed, site and step number choose. Not private in any sense."""
    inputs, labels = torch.from_numpy(records.x), torch.from_numpy(records.y)

    def gradient(model: nn.Module, step: int) -> None:
        rows = batch_at(seed=seed, site=site, step=step, n_records=len(labels), batch=training.batch)
        chosen = torch.from_numpy(rows)
        loss = binary_cross_entropy_with_logits(model(inputs[chosen]).squeeze(1), labels[chosen])
        loss.backward()  # type: ignore[no-untyped-call]

    return gradient


def private_gradient(records: Records, plan: RecordPlan, *, entropy: Entropy) -> GradientSource:
    """Clipped, summed, noised gradient over the *expected* batch size (Abadi et al., CCS 2016, algorithm 1).

    Every call is one execution of ``plan.mechanism``, an empty Poisson batch included; the caller counts and debits
    them before anything derived from the result leaves the site.

    Args:
      records: Exactly ``plan.n_records`` of them.
      plan: Ties clip, noise and sampling to what was priced.
      entropy: Randomness of noise and sampling, in production ``secrets.token_bytes``.
    """
    if len(records.y) != plan.n_records:
        raise ConfigError(f"the plan was made for {plan.n_records} records, the site has {len(records.y)}")

    def gradient(model: nn.Module, _step: int) -> None:
        chosen = np.flatnonzero(poisson_mask(float(plan.sampling.rate), plan.n_records, entropy))
        wrapped = _per_record_module(model)
        try:
            total = sum(
                (
                    plan.mechanism.constrain(_per_record_gradients(wrapped, records, chosen[at : at + _CHUNK]))
                    for at in range(0, len(chosen), _CHUNK)
                ),
                start=np.zeros(to_vector(model).size, dtype=np.int64),
            )
        finally:
            wrapped.to_standard_module()
        released = plan.mechanism.add_noise(total, entropy) / plan.expected_batch
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter, part in zip(parameters, _split_like(released.astype(np.float32), parameters), strict=True):
            parameter.grad = part

    return gradient


def check_private_model(model: nn.Module) -> None:
    """Refuses layers through which one record reaches another's gradient.

    Raises: ConfigError: The model has such a layer (BatchNorm, say); the hint names the way out.
    """
    if ModuleValidator.validate(model, strict=False):
        raise ConfigError(
            "record-level privacy cannot clip this model: a layer mixes records (BatchNorm?)",
            hint="Use GroupNorm or LayerNorm instead of BatchNorm, or --privacy none.",
        )


def _per_record_module(model: nn.Module) -> GradSampleModule:
    if isinstance(model, GradSampleModule):
        raise ConfigError("the model is already wrapped for per-record gradients")
    model.train()
    return GradSampleModule(model, loss_reduction="sum")


def _per_record_gradients(
    wrapped: GradSampleModule, records: Records, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    wrapped.zero_grad(set_to_none=True)
    # Opacus hooks the module's backward pass, which torch runs in full only if the inputs take gradients too.
    logits = wrapped(torch.from_numpy(records.x[rows]).requires_grad_()).squeeze(1)
    labels = torch.from_numpy(records.y[rows])
    binary_cross_entropy_with_logits(logits, labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
    samples = [
        parameter.grad_sample.reshape(len(rows), -1) for parameter in wrapped.parameters() if parameter.requires_grad
    ]
    return torch.cat(samples, dim=1).double().numpy()


def _split_like(vector: Vector | None, parameters: list[nn.Parameter]) -> list[torch.Tensor | None]:
    if vector is None:
        return [None] * len(parameters)
    flat = torch.from_numpy(np.array(vector, dtype=np.float32))
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    return [part.reshape(parameter.shape) for part, parameter in zip(parts, parameters, strict=True)]


def _optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=training.learning_rate)
    return torch.optim.SGD(parameters, lr=training.learning_rate)
