"""Which kinds of agents there are, what each can offer, and which one a site runs."""

from collections.abc import Iterable, Mapping

from clients.agent import Agent, TorchAgent
from clients.records import Records
from clients.scikit_agent import ScikitAgent
from privacy.dp.plan import RecordPlan, Unit
from privacy.errors import ConfigError
from strategies.algorithm import LocalRule
from strategies.job import Job
from strategies.parts import AgentSpec, Kind
from strategies.sub_models import SubModel
from strategies.task import ModelSpec, SiteId, Training

_OFFERS: Mapping[Kind, frozenset[str]] = {"torch": TorchAgent.offers, "scikit-learn": ScikitAgent.offers}


def refuse_unless_offered(
    kind: Kind,
    privacy: tuple[str, ...],
    *,
    site: SiteId,
    unit: Unit = Unit.RECORD,
    rule: LocalRule | None = None,
) -> None:
    """Checks what a job asks of a site against its kind of agent; needs no records.

    Args:
      kind: Of the agent.
      privacy: Settings of the job; empty for none.
      site: Whose agent it is.
      unit: Whom noise in the sum protects. ``distributed`` with any other than a site sums clipped records.
      rule: How the algorithm's steps differ from plain ones.

    Raises: ConfigError: The agent cannot do it.
    """
    wanted = set(privacy or ("none",))
    if "distributed" in wanted and not wanted & {"record", "site"} and unit is not Unit.SITE:
        wanted.add("record")
    lacking = wanted - _OFFERS[kind]
    if "record" in lacking:
        raise ConfigError(
            f"the {kind} agent of {site} cannot offer record-level privacy: it shows no gradients per record",
            hint=f"Give {site} the torch agent, or choose --privacy site.",
        )
    if lacking:
        raise ConfigError(f"the {kind} agent of {site} cannot offer --privacy {min(lacking)}")
    if kind == "scikit-learn" and rule is not None and (rule.proximal or rule.control):
        raise ConfigError(
            f"the {kind} agent of {site} takes plain steps only: the strategy corrects every step",
            hint=f"Give {site} the torch agent, or choose --strategy fedavg.",
        )


def check_agents(job: Job, sites: Iterable[SiteId]) -> None:
    """Checks what a job asks of these sites against their kinds of agents. Raises: ConfigError: One cannot do it."""
    for site in sites:
        kind = job.agent_of(site).kind
        refuse_unless_offered(kind, job.privacy, site=site, unit=job.unit, rule=job.algorithm.local)


def agent_of(  # noqa: PLR0913 - what an agent is made of; each is of another kind and named at the call
    spec: AgentSpec,
    *,
    site: SiteId,
    model: ModelSpec,
    n_inputs: int,
    training: Training,
    records: Records,
    seed: int,
    plan: RecordPlan | None,
    part: SubModel,
) -> Agent:
    """Builds a site's agent, with the site's own settings in place of the common ones.

    Args:
      spec: Kind and settings.
      site: Who trains.
      model: The piece that ``part`` describes.
      n_inputs: Width of an encoded record.
      training: Common settings.
      records: Training records. Secret.
      seed: Orders batches where there is no plan.
      plan: Noise in every step, or ``None`` for none.
      part: What of the piece is shared, frozen and private.

    Raises: ConfigError: This kind of agent cannot serve the plan, the part, the model or the settings.
    """
    own = spec.training(training)
    if spec.kind == "torch":
        frozen = None if part.trained.all() else ~part.trained
        return TorchAgent(site, model, n_inputs, own, records, seed, plan, frozen)
    if plan is not None:
        refuse_unless_offered(spec.kind, ("record",), site=site)
    if part.frozen or part.private:
        raise ConfigError(
            f"the {spec.kind} agent of {site} trains all of its part and sends it: nothing can be frozen or private",
            hint=f"Give {site} the torch agent.",
        )
    return ScikitAgent(site, model, n_inputs, own, records, seed)
