"""Local training, plain or with record-level privacy. The only file that uses Opacus.

A private step takes one of two paths, by the model's size. Small models: gradients per record from Opacus, clipped and
summed in exact integers (``privacy.dp.mechanism``). Large ones: `clients.clipping`, in floating point. Opacus gives
gradients per record and nothing else; noise, the denominator and the count of executions are ours on both paths.
Opacus' own noise and sampling come from torch's global generator, that is from ``--seed``: they are not used.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clients.batches import batch_at
from clients.clipping import Batch, Clipping, Losses, chunks, on_integer_path, rows_at_once
from clients.records import Records
from privacy.dp.events import Arithmetic, SamplingType
from privacy.dp.mechanism import ClippedSum
from privacy.dp.noise import Entropy, poisson_mask
from privacy.dp.plan import RecordPlan, Unit
from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.losses import mean_loss, record_losses
from strategies.models import load_vector, to_vector
from strategies.task import SiteId, Training

_root = logging.getLogger()
_logging_as_found = (list(_root.handlers), _root.level)
from opacus.grad_sample import GradSampleModule  # noqa: E402 - see the next line but one
from opacus.validators import ModuleValidator  # noqa: E402

# Opacus configures the root logger when it is imported; what is logged, and where, is the application's affair.
_root.handlers[:], _root.level = _logging_as_found

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
    drifts = [None] * len(parameters) if steps.drift is None else _split_like(torch.tensor(steps.drift), parameters)
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
        mean_loss(model(inputs[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]

    return gradient


def private_gradient(records: Records, plan: RecordPlan, *, entropy: Entropy) -> GradientSource:
    """Clipped, summed, noised gradient over the *expected* batch size (Abadi et al., CCS 2016, algorithm 1).

    The unit is a record, or a patient where the records name one: then a coin is tossed for each patient, all records
    of one that comes up enter, their gradients are added up, and the sum is clipped once. The batch size, too, counts
    units. A step may be taken in pieces of whole units; noise is added once a step.

    Every call is one execution of ``plan.mechanism``, an empty Poisson batch included; the caller counts and debits
    them before anything derived from the result leaves the site.

    Args:
      records: Of exactly ``plan.n_records`` units.
      plan: Ties clip, noise and sampling to what was priced.
      entropy: Randomness of noise and sampling, in production ``secrets.token_bytes``.
    """
    units = "records" if records.patient is None else "patients"
    if records.n_units != plan.n_records:
        raise ConfigError(f"the plan was made for {plan.n_records} {units}, the site has {records.n_units}")
    if (plan.unit is Unit.PATIENT) != (records.patient is not None):
        raise ConfigError(f"the plan protects a {plan.unit}, and this site can only count {units}")
    if plan.sampling.type not in (SamplingType.FULL, SamplingType.POISSON):
        raise ConfigError(f"no site can draw batches of the kind {plan.sampling.type}")
    clippings: dict[nn.Module, Clipping] = {}

    def gradient(model: nn.Module, _step: int) -> None:
        if isinstance(model, GradSampleModule):
            raise ConfigError("the model is already wrapped for per-record gradients")
        if plan.arithmetic is Arithmetic.INTEGER_EXACT and arithmetic_of(model, plan) is Arithmetic.FLOAT:
            raise ConfigError("the plan declares exact noise, which a model of this size does not get")
        chosen, sizes = records.of_units(poisson_mask(float(plan.sampling.rate), plan.n_records, entropy))
        batch = torch.from_numpy(chosen.x), torch.from_numpy(chosen.y), sizes
        model.train()
        if not on_integer_path(model) and model not in clippings:
            clippings[model] = Clipping(model, record_losses)
        released = noisy_mean(model, record_losses, batch, plan, entropy=entropy, clipping=clippings.get(model))
        set_gradients([parameter for parameter in model.parameters() if parameter.requires_grad], released)

    return gradient


def noisy_mean(
    model: nn.Module,
    losses: Losses,
    batch: Batch,
    plan: RecordPlan,
    *,
    entropy: Entropy,
    clipping: Clipping | None = None,
) -> torch.Tensor:
    """Clips and sums the gradients of units, and adds the noise of one step, over the expected batch size.

    Args:
      model: Left as it was, but for its gradients; its size decides the path.
      losses: One loss per record.
      batch: May hold no record. Secret.
      plan: Clip, noise and denominator.
      entropy: Source of the noise.
      clipping: Of this very model, where it is at hand.

    Returns: Shape ``(d,)``, float32. Public once its event is debited.
    """
    if on_integer_path(model):
        total = integer_sum(model, losses, batch, plan.mechanism)
        return torch.from_numpy(plan.mechanism.add_noise(total, entropy) / plan.expected_batch).float()
    return (clipping or Clipping(model, losses)).noisy_mean(
        batch,
        clip=float(plan.clip),
        noise_multiplier=float(plan.noise_multiplier),
        denominator=plan.expected_batch,
        entropy=entropy,
    )


def set_gradients(parameters: Sequence[nn.Parameter], flat: torch.Tensor) -> None:
    """Makes parts of a vector of shape ``(d,)`` the gradients of the parameters, in their order."""
    for parameter, part in zip(parameters, _split_like(flat, parameters), strict=True):
        parameter.grad = part


def arithmetic_of(model: nn.Module, plan: RecordPlan) -> Arithmetic:
    """Returns how a step's noise is drawn, a function of public values; belongs into the plan and so into its events.

    On the float path clipping, too, is floating-point (`clients.clipping`).
    """
    if not on_integer_path(model):
        return Arithmetic.FLOAT
    return plan.mechanism.arithmetic(_n_trained(model))


def integer_sum(model: nn.Module, losses: Losses, batch: Batch, mechanism: ClippedSum) -> npt.NDArray[np.int64]:
    """Sums clipped gradients of units on the mechanism's grid; gradients per record come from Opacus.

    Args:
      model: Left as it was, but for its mode and gradients.
      losses: One loss per record.
      batch: May hold no record. Secret.
      mechanism: Clips and sums.

    Returns: Shape ``(d,)``, grid units. Secret.
    """
    inputs, labels, sizes = batch
    total = np.zeros(_n_trained(model), np.int64)
    wrapped = opacus_model(model)
    try:
        for rows, held in chunks(len(labels), sizes, rows_at_once(total.size)):
            found = per_record_gradients(wrapped, losses, inputs[rows], labels[rows])
            per_record = torch.cat([each.flatten(1) for each in found], dim=1).double().numpy()
            total += mechanism.constrain(per_record if held is None else _by_unit(per_record, held))
    finally:
        wrapped.to_standard_module()
    return total


def _by_unit(per_record: npt.NDArray[np.float64], sizes: Sequence[int]) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):  # a sum that is no number is the mechanism's to drop
        return np.asarray(np.add.reduceat(per_record, np.cumsum([0, *sizes[:-1]]), axis=0))


def opacus_model(model: nn.Module) -> GradSampleModule:
    """Returns the model with Opacus' hooks on its layers; ``to_standard_module`` takes them off."""
    return GradSampleModule(model, loss_reduction="sum")


def per_record_gradients(
    wrapped: GradSampleModule, losses: Losses, inputs: torch.Tensor, labels: torch.Tensor
) -> list[torch.Tensor]:
    """Returns Opacus' gradients, per trainable parameter ``(b, …)``: the reference for `clients.clipping`."""
    wrapped.zero_grad(set_to_none=True)
    # Opacus hooks the module's backward pass, which torch runs in full only if the inputs take gradients too.
    watched = inputs.clone().requires_grad_() if inputs.is_floating_point() else inputs
    losses(wrapped(watched), labels).sum().backward()  # type: ignore[no-untyped-call]
    return [parameter.grad_sample for parameter in wrapped.parameters() if parameter.requires_grad]


def check_private_model(model: nn.Module) -> None:
    """Refuses layers through which one record reaches another's gradient.

    Raises: ConfigError: The model has such a layer (BatchNorm, say); the hint names the way out.
    """
    if ModuleValidator.validate(model, strict=False):
        raise ConfigError(
            "record-level privacy cannot clip this model: a layer mixes records (BatchNorm?)",
            hint="Use GroupNorm or LayerNorm instead of BatchNorm, or --privacy none.",
        )


def _n_trained(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _split_like(flat: torch.Tensor, parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    parts = flat.split_with_sizes([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def _optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    if training.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=training.learning_rate)
    return torch.optim.SGD(parameters, lr=training.learning_rate)
