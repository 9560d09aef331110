"""A site tests its own release paths before it takes part: what a report can say about the code that ran there.

Vectors, records and labels are made up; no record of the site is read, and nothing that is released is kept.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from clients.agent import TorchAgent
from clients.chain.agent import ChainAgent
from clients.chain.conformance import check_chain
from clients.clipping import INTEGER_PARAMETERS
from clients.records import Records
from clients.release_path import path_of
from clients.work import Site, contribute, plans_of
from privacy.conformance import sampling
from privacy.conformance.path import PathOf, Recorded, ReleasePath, keys_of
from privacy.conformance.results import Result, certain
from privacy.conformance.statements import stated
from privacy.conformance.tests import EVENTS, Conformance, conformance_of
from privacy.dp.events import Sampling, SamplingType
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan, SitePlan
from strategies.contribution import Vector

_FEW = 8


def check_release_paths(site: Site, entropy: Entropy) -> bytes:
    """Tests the site's paths and returns what it states of them; empty where it has no privacy plan.

    Noise on what crosses a chain is tested as well, and no part of the statement.

    Raises: PrivacyError: A path does not conform: the site takes no part.
    """
    if isinstance(site.agent, ChainAgent):
        check_chain(site.agent.chain, entropy, who=site.id)
    return stated(conform(site, entropy), who=site.id)


def conform(site: Site, entropy: Entropy) -> tuple[Conformance, ...]:
    """Tests every path whose noise the site adds, and the clipping for a server that does; whatever comes out.

    Args:
      site: Its plans, its agent and its kind of model. Its records are not looked at, but by somebody else's agent that
        adds noise of its own: only it knows how to count that. What it trains is thrown away.
      entropy: Randomness, in production ``secrets.token_bytes``.
    """
    found = [
        _with_events(conformance_of(_path_of(site, plan), entropy), _events_test(site, plan, entropy))
        for plan in plans_of(site)
    ]
    if isinstance(site.sum_plan, SitePlan):
        found.append(conformance_of(_path_of(site, site.sum_plan), entropy, noised=False))
    return tuple(found)


def _path_of(site: Site, plan: PrivacyPlan) -> PathOf:
    floating = isinstance(plan, RecordPlan) and site.part.piece.size > INTEGER_PARAMETERS
    if isinstance(plan, RecordPlan) and plan.sampling.type is SamplingType.POISSON:
        plan = replace(plan, sampling=Sampling(SamplingType.POISSON, sampling.within_reach(plan.sampling.rate)))

    def built(dimension: int, n_units: int) -> ReleasePath:
        return path_of(plan, dimension=dimension, n_units=n_units, floating=floating)

    return built


def _with_events(found: Conformance, result: Result) -> Conformance:
    return replace(found, tests=(*found.tests, result))


def _events_test(site: Site, plan: PrivacyPlan, entropy: Entropy) -> Result:
    """A8: in one attempt, exactly as many executions draw noise as are debited for it."""
    debited = plan.event(plan.steps_per_attempt).count
    rehearsed, drawn, executed = _rehearsed(site), Recorded(entropy), 0.0
    if isinstance(site.agent, TorchAgent) or site.plan is not None:
        executed = float(contribute(rehearsed, _broadcast(rehearsed), round_number=1, entropy=drawn).executions)
    if rehearsed.plan is not None:
        each = len(keys_of(path_of(rehearsed.plan, dimension=_FEW, n_units=_FEW), entropy))
        executed = max(executed, len(drawn.keys) / each, key=lambda found: abs(found - debited))
    if isinstance(plan, DistributedPlan):
        shares = Recorded(entropy)
        plan.share(_FEW, plan.noise.counted + plan.colluders, shares)
        # The share is drawn when the sum is masked; without a plan of its own, training draws nothing.
        executed = len(shares.keys) + (len(drawn.keys) if rehearsed.plan is None else 0)
    return certain(*EVENTS, debited, abs(executed - debited))


def _rehearsed(site: Site) -> Site:
    """Returns the site with a few made-up records, and plans for so many; only our own agents have noise to count."""
    if not isinstance(site.agent, TorchAgent | ChainAgent):
        return site
    patient = np.arange(_FEW) if site.records.patient is not None else None
    records = Records(np.zeros((_FEW, site.records.x.shape[1]), np.float32), np.zeros(_FEW, np.float32), patient)
    plan = None if site.plan is None else replace(site.plan, n_records=_FEW)
    if isinstance(site.agent, ChainAgent):
        return replace(site, records=records, plan=plan, agent=site.agent.rehearsed(records, plan))
    return replace(site, records=records, plan=plan, agent=replace(site.agent, records=records, plan=plan))


def _broadcast(site: Site) -> Mapping[str, Vector]:
    start = site.part.shared_of(site.initial)
    return {"model": start, "control": np.zeros_like(start)} if site.algorithm.local.control else {"model": start}
