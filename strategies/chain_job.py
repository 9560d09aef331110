"""The chain of a job: the pieces of its model, and the plan of stages that every party works out alike.

Owner and holder each compute both from their own study; what travels is the plan, and its digest is compared.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from privacy.errors import ConfigError
from strategies.analysis import analyse
from strategies.chain_plan import ChainPlan, StageSpec, leaving
from strategies.cuts import Piece, find_cuts, split
from strategies.models import build
from strategies.release import AnyRelease, Crossing, Release
from strategies.task import ModelSpec, SiteId
from strategies.tracing import trace

if TYPE_CHECKING:
    from strategies.job import Job

WHOLE_STEP = 2**24
"""Records of a micro-batch where a step is not divided: no step has more."""

FEW_RECORDS = 2
"""Records of an example that a model is traced with; a trace does not depend on how many."""


@lru_cache(maxsize=32)
def pieces(spec: ModelSpec, n_inputs: int, front: str, tail: str) -> tuple[Piece, ...]:
    """Returns front, held piece and, if there is one, tail of a cut model.

    Raises: ConfigError: The model cannot be cut so.
    """
    inputs = (torch.zeros(FEW_RECORDS, n_inputs),)
    traced = trace(build(spec, n_inputs, seed=0), inputs)
    cuts = {cut.node: cut for cut in find_cuts(analyse(traced, inputs))}
    wanted = [name for name in (front, tail) if name]
    for name in wanted:
        if name not in cuts:
            raise ConfigError(
                f"the model of this study cannot be cut after {name!r}",
                hint=f"It can be after {', '.join(cuts) or 'nothing'}.",
            )
    return split(traced, [cuts[name] for name in wanted])


def chain_of(job: "Job", site: SiteId) -> ChainPlan:
    """Returns the chain that one site's records pass through.

    Raises: ConfigError: The job has no chain, or its model cannot be cut so.
    """
    chain = job.chain
    if chain is None:
        raise ConfigError(f"{job.name} has no chain")
    training = job.agent_of(site).training(job.task.training)
    found = pieces(job.task.model, job.task.n_inputs, chain.front, chain.tail)
    devices = [site, chain.holder, site][: len(found)]
    return ChainPlan(
        model=job.name,
        home=site,
        owner=site,
        stages=tuple(
            StageSpec(device, device, piece.start, piece.end, piece.keys, piece.digest)
            for device, piece in zip(devices, found, strict=True)
        ),
        train=True,
        optimizer="adam" if training.optimizer == "adam" else "sgd",
        micro_batch=chain.micro_batch or WHOLE_STEP,
        in_flight=4 if chain.micro_batch else 1,
        releases=chain.released_by(site),
    )


def check_chain(job: "Job") -> None:
    """Refuses a chain that the rest of a job cannot serve, and a crossing that nobody released.

    Raises:
      ConfigError: Named after what stands in the way.
      PrivacyError: Something would cross that the study does not release.
    """
    chain, rule = job.chain, job.algorithm.local
    if chain is None:
        return
    if rule.proximal or rule.control:
        raise ConfigError(
            f"{job.strategy} corrects every step of the whole model: a chain takes plain steps",
            hint="Choose --strategy fedavg.",
        )
    for site in job.sites:
        if site == chain.holder:
            raise ConfigError(f"{site} holds the piece between and cannot train through itself")
        plan, agent = chain_of(job, site), job.agent_of(site)
        if agent.kind != "torch":
            raise ConfigError(f"the {agent.kind} agent of {site} cannot train through a chain: give it the torch agent")
        if job.record_privacy and agent.training(job.task.training).batch:
            raise ConfigError(
                f"{chain.holder} would see which records enter a batch, so nothing is gained by drawing them",
                hint="Add --set batch=0, and settings of single sites alike.",
            )
        _check_releases(job, site, plan)


def releases_in_attempt(job: "Job", site: SiteId, release: AnyRelease) -> int:
    """Returns how often values of one record leave under a release in one attempt of a round."""
    chain = job.chain
    back = Crossing.GRADIENTS if chain is not None and chain.tail else Crossing.LABELS
    return job.agent_of(site).training(job.task.training).local_steps * len(release.what & {Crossing.ACTIVATIONS, back})


def _check_releases(job: "Job", site: SiteId, plan: ChainPlan) -> None:
    found = {release for release in leaving(plan).values() if isinstance(release, Release)}
    if found and job.privacy != ("record",):
        raise ConfigError(
            "noise on what crosses protects nothing while the weights in front of it carry the records along",
            hint='Choose --privacy record, and nothing beside it; or say unsafe = "REASON" in [[chain.releases]].',
        )
    for release in found:
        wanted = releases_in_attempt(job, site, release) * job.max_attempts
        if wanted > release.most:
            raise ConfigError(
                f"values of a record of {site} would leave {wanted} times, retries included, and their release to"
                f" {release.to} allows {release.most}",
                hint="Set most in [[chain.releases]], or take fewer rounds or steps.",
            )
