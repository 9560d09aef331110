"""What a server would reconstruct of one record from one update: in the clear, under masks, under noise.

The record is made up from the ranges that the study declares; nobody's rows are read. It is alone at its site and takes
one step of length 1 with the run's model, by the code that sites run. That is the worst case: with others in the sum
there is more to guess, and for a server that knows all others the record is alone again.

A dense first layer gives its input away. Its gradient for the weights is the outer product of what goes back, ``δ``,
and what came in, ``x``; its gradient for the biases is ``δ``; so each row holds ``x``. A convolution is not like that,
and is not attacked here.

Symbols: ``n`` values of a record, ``h`` rows of the first layer, ``d`` parameters.

See: Geiping et al., NeurIPS 2020, "Inverting Gradients", proposition 3.1.
"""

import math
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from flwr.app import ConfigRecord, Message

from clients.agent import TorchAgent
from clients.records import Records
from clients.sites import site_of
from clients.work import contribute
from privacy.audit.measured.inversion import View, inversion_claim
from privacy.dp.events import FULL_BATCH
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan, RecordPlan, Unit
from privacy.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from privacy.secagg import wire
from privacy.secagg.ring import from_ring, ring_dtype
from simulations.audit.made_up_record import Scale, Values, drawn, glyph, picture_of
from simulations.audit.training import train_copy
from simulations.data.datasets import SiteData
from simulations.job import Job
from strategies.fed_avg import FedAvg
from strategies.messages import RECORD
from strategies.parts import Division
from strategies.secure_sum import BITS, PLAIN
from strategies.task import SiteId

_MOST_VALUES = 4096  # that a report has room for
_MOST_BYTES = 2**30  # of a masked vector


@dataclass(frozen=True, eq=False)
class Inversion:
    """A record and what each view of its update gives away; public, since the record is nobody's.

    Attributes:
      fields: Name of each value of a table; empty for a picture.
      width: Values a row of a picture; 1 for a table.
      record: Shape ``(n,)``, values from 0 to 1.
      guess: Likewise: what somebody would say who saw nothing.
      views: Likewise: what a server makes of each view.
    """

    form: Literal["table", "image"]
    fields: tuple[str, ...]
    width: int
    record: Values
    guess: Values
    views: Mapping[View, Values]

    @property
    def claim(self) -> dict[str, Any]:
        """The claim ``audit.inversion``."""
        return inversion_claim(**vars(self))


def inversion(
    job: Job, sizes: Mapping[SiteId, int], *, seed: int, entropy: Entropy = secrets.token_bytes
) -> Inversion | None:
    """Attacks one made-up record as the server of a run could.

    Args:
      job: The run's.
      sizes: Training units of each site; public. They decide how much noise a step gets.
      seed: Draws the record.
      entropy: Randomness of noise and masks.

    Returns: What came out, or ``None`` if the server of such a run sees updates in the clear: nothing to compare.
    Raises: ConfigError: The first layer is a convolution, or a record has too many values to show.
    """
    if job.task.model.kind == "cnn":
        raise ConfigError("the model begins with a convolution, whose gradient does not hold its input so plainly")
    if job.task.n_inputs > _MOST_VALUES:
        raise ConfigError(f"records have more than the {_MOST_VALUES} values that a report has room for")
    plan = _least_noise(job, sizes)
    if plan is None and not job.secagg:
        return None
    scale, picture, one = Scale.of(job.task), picture_of(job.task), _one_step(job)
    rng = np.random.default_rng(seed)
    record = drawn(job.task, rng) if picture is None else glyph(*picture, rng)
    records = scale.encoded(record)

    def read(gradient: Values, bound: float) -> Values:
        shape = one.plan.layout.shapes[0]
        return scale.values(inverted(gradient, shape, bound, mean=scale.mean, variance=scale.variance))

    unclipped = PLAIN.largest / 2**PLAIN.fraction_bits * math.sqrt(one.initial.size)
    views: dict[View, Values] = {"clear": read(_in_the_clear(one, records, entropy), unclipped)}
    if job.secagg:
        views["masked"] = read(_masked(one, records, entropy), unclipped)
    if plan is not None:
        views["noised"] = read(_noised(one, records, plan, entropy), float(plan.clip))
    return Inversion(
        form="table" if picture is None else "image",
        fields=scale.names if picture is None else (),
        width=1 if picture is None else picture[1],
        record=record,
        guess=scale.values(scale.mean),
        views=views,
    )


def inverted(gradient: Values, shape: tuple[int, ...], bound: float, *, mean: Values, variance: Values) -> Values:
    """Reads a record out of what may be its gradient and may have noise in it.

    Rows ``G_j = δ_j x + noise`` and biases ``g_j = δ_j + noise`` are a factor model of rank one. The answer is the mean
    of ``x`` given what the biases say about ``δ``, under Gaussian priors: one step of expectation-maximisation (Rubin
    and Thayer, Psychometrika 1982). Without noise that is least squares, hence exact; the more noise there is, the
    nearer it comes to the guess. How much there is, is read off the vector: what is too long for an honest gradient.

    Args:
      gradient: As the server sees it, or its opposite, shape ``(d,)``; the weights of the first layer come first, then
        its biases.
      shape: Of these weights, ``(h, n)``.
      bound: Largest 2-norm of an honest gradient.
      mean: The guess, encoded, shape ``(n,)``.
      variance: Of a record around it.

    Returns: ``x``, shape ``(n,)``.
    """
    h, n = shape
    weights, biases = gradient[: h * n].reshape(h, n), gradient[h * n : h * n + h]
    noise = max(0.0, float(gradient @ gradient) - bound**2) / gradient.size
    prior = bound**2 / gradient.size  # variance of an entry of δ
    back = biases * prior / (prior + noise)
    squares = float(back @ back) + h * prior * noise / (prior + noise)  # mean of |δ|²
    pull = noise / np.maximum(variance, np.finfo(np.float64).tiny)
    if squares == 0.0:
        return mean  # nothing went back through the first layer
    return np.asarray((back @ weights + pull * mean) / (squares + pull))


def _one_step(job: Job) -> Job:
    """Returns the run's job as one plain step of length 1, of everybody with the whole model, without noise."""
    training = replace(
        job.task.training, rounds=1, local_steps=1, learning_rate=1.0, batch=0, optimizer="sgd", retries=0
    )
    return replace(
        job,
        scenario=replace(job.scenario, allowed=()),
        task=replace(job.task, training=training, patient=""),
        strategy=FedAvg.name,
        algorithm=FedAvg(),
        privacy=(),
        division=Division(),
        agents={},
    )


def _least_noise(job: Job, sizes: Mapping[SiteId, int]) -> RecordPlan | DistributedPlan | None:
    """Returns the plan of the noise that hides a site from the server; of several, the one that adds least.

    Noise that the server itself adds is none: that hides the sites from the recipients of the model.
    """
    plans = [plan for site in job.sites if (plan := job.record_plan(site, sizes[site])) is not None]
    if plans:
        return min(plans, key=lambda plan: plan.noise_multiplier)
    return job.sum_plan if isinstance(job.sum_plan, DistributedPlan) else None


def _in_the_clear(one: Job, records: Records, entropy: Entropy) -> Values:
    """Returns an update that nothing protects, shape ``(d,)``."""
    site = site_of(one, one.sites[0], records)
    work = contribute(site, {"model": one.initial}, round_number=1, entropy=entropy)
    return work.contribution.arrays["update"].astype(np.float64)


def _noised(one: Job, records: Records, plan: RecordPlan | DistributedPlan, entropy: Entropy) -> Values:
    """Returns the update with the run's noise, for a server that knows all other records, shape ``(d,)``."""
    site = site_of(one, one.sites[0], records)
    start = {"model": one.initial}
    if isinstance(plan, RecordPlan):
        alone = replace(plan, unit=Unit.RECORD, sampling=FULL_BATCH, n_records=1, steps_per_attempt=1)
        agent = TorchAgent(site.id, one.task.model, one.task.n_inputs, one.task.training, records, one.seed, alone)
        work = contribute(replace(site, plan=alone, agent=agent), start, round_number=1, entropy=entropy)
        return work.contribution.arrays["update"].astype(np.float64)
    work = contribute(replace(site, sum_plan=plan), start, round_number=1, entropy=entropy)
    if work.units is None:
        raise LocalProtocolError("a site with noise in the sum made no units of it")
    counted = plan.noise.counted
    shares = [plan.share(work.units.size, counted + plan.colluders, entropy) for _ in range(counted)]
    total = work.units + np.sum(shares, axis=0)
    return np.asarray(float(plan.clip) / plan.units * total, np.float64)


def _masked(one: Job, records: Records, entropy: Entropy) -> Values:
    """Returns what the server gets from one site under masks, read as if it were in the clear; shape ``(d,)``."""
    heard: list[wire.Msk] = []

    def overhear(_site: SiteId, message: Message) -> None:
        body = message.content.get(RECORD) if message.has_content() else None
        data = body.get(RECORD) if isinstance(body, ConfigRecord) else None
        if isinstance(data, bytes):
            with suppress(RemoteProtocolError):  # other messages of the run
                sent = wire.decode(data, limit=_MOST_BYTES)
                heard.extend([sent] if isinstance(sent, wire.Msk) else [])

    everybody = {site: SiteData(site, records, records) for site in one.sites}  # any of them will do
    train_copy(one, everybody, entropy=entropy, overhear=overhear)
    (region,) = heard[0].y.values()  # everybody holds the whole model
    units = from_ring(np.frombuffer(region, ring_dtype(BITS)), BITS)
    return np.ldexp(units.astype(np.float64), -PLAIN.fraction_bits)
