"""What ledgers say after a run, and the report's claims of differential privacy that follow from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from privacy.audit.site_statement import opened
from privacy.audit.testimony import keys_of
from privacy.charter.document import Charter
from privacy.dp.accounting import epsilon, round_up
from privacy.dp.events import Arithmetic, Event, Relation, SkellamEvent, event_from_json, merged
from privacy.dp.filters import Filter
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan
from privacy.errors import FederationError, UnsupportedEventError
from strategies.job import Job
from strategies.task import SiteId

Debits: TypeAlias = Sequence[Mapping[str, Any]]
Placement: TypeAlias = Literal["local", "central", "distributed"]
"""Where noise is added: in each step at the site, to the opened sum, or as shares under the masks."""

_CLAIM_IDS: dict[Placement, str] = {
    "local": "privacy.epsilon",
    "central": "privacy.epsilon.site",
    "distributed": "privacy.epsilon.distributed",
}


@dataclass(frozen=True)
class Lifetime:
    """A budget for all that ever runs on an asset, and what has been spent of it.

    Attributes:
      events: Of all runs, equal ones merged.
    """

    asset: str
    budget: Filter
    events: tuple[Event, ...]

    @property
    def epsilon(self) -> float:
        """What all runs together cost at most, under the budget's filter."""
        return self.budget.epsilon_of(self.budget.spent(self.events))


@dataclass(frozen=True)
class Spent:
    """What one ledger says after a run.

    Attributes:
      events: Debited events, equal mechanisms merged.
      lifetime: The asset's budget, if it has one, and what all runs together have spent of it.
    """

    plan: PrivacyPlan
    events: tuple[Event, ...]
    lifetime: Lifetime | None = None

    @property
    def executions(self) -> int:
        """Mechanism executions that were paid for."""
        return sum(event.count for event in self.events)

    def epsilon(self, relation: Relation = Relation.REPLACE_SPECIAL) -> float:
        """Returns epsilon of what was executed, by the plan's accountant."""
        return self.plan.epsilon(self.executions, relation)


@dataclass(frozen=True)
class PrivacyClaim:
    """One promise of differential privacy, and who paid for it; claims are never added up.

    Attributes:
      placement: Where the noise was added.
      spent: By site, or under ``server``; only those that paid for something.
    """

    placement: Placement
    spent: Mapping[str, Spent]

    @property
    def plan(self) -> PrivacyPlan:
        """Of the holder whose claim is weakest."""
        return self.worst.plan

    @property
    def worst(self) -> Spent:
        """The holder with the largest epsilon."""
        return max(self.spent.values(), key=lambda spent: spent.epsilon())


def epsilon_claim(claim: PrivacyClaim, n_sites: int) -> dict[str, Any]:
    """Returns the claim as the report makes it; ``n_sites`` bring shares where the noise is distributed."""
    plan = claim.plan
    exact = all(is_exact(event) for spent in claim.spent.values() for event in spent.events)
    distributed = isinstance(plan, DistributedPlan)
    return {
        "id": _CLAIM_IDS[claim.placement],
        "kind": "proved" if exact else "asserted",
        "placement": claim.placement,
        "unit": str(plan.unit),
        "relation": str(plan.relation),
        "delta": f"{plan.delta:f}",
        "accountant": plan.accountant,
        "target_epsilon": f"{plan.target:f}",
        "executions_per_attempt": plan.steps_per_attempt,
        "budget_executions": plan.max_executions,
        **({"hypothetical": _hypothetical(claim, n_sites)} if distributed else {}),
        "sites": [_holder_epsilon(holder, spent, plan.steps_per_attempt) for holder, spent in claim.spent.items()],
    }


def is_exact(event: Event) -> bool:
    """Whether an event's noise is drawn as exact integers."""
    return isinstance(event, SkellamEvent) or event.arithmetic is Arithmetic.INTEGER_EXACT


def _holder_epsilon(holder: str, spent: Spent, usual: int) -> dict[str, Any]:
    plan, executions = spent.plan, spent.executions
    return {
        "site": holder,
        **({"n_train": plan.n_records} if isinstance(plan, RecordPlan) else {}),
        "clip": f"{plan.clip:f}",
        "epsilon": round_up(spent.epsilon()),
        "epsilon_replace_one": round_up(spent.epsilon(Relation.REPLACE_ONE)),
        "epsilon_rdp": round_up(plan.epsilon(executions, accountant="RDP")),
        "planned_epsilon": round_up(plan.epsilon(plan.max_executions)),
        **({} if plan.steps_per_attempt == usual else {"executions_per_attempt": plan.steps_per_attempt}),
        "events": [event.to_json() for event in spent.events],
        **({} if spent.lifetime is None else {"lifetime": _lifetime(spent.lifetime)}),
    }


def _lifetime(lifetime: Lifetime) -> dict[str, Any]:
    budget = lifetime.budget
    return {
        "asset": lifetime.asset,
        "epsilon": round_up(lifetime.epsilon),
        "budget": f"{budget.epsilon:f}",
        "delta": f"{budget.delta:f}",
        "filter": str(budget.kind),
        "order": budget.order,
        "events": [event.to_json() for event in lifetime.events],
    }


def _hypothetical(claim: PrivacyClaim, n_sites: int) -> list[dict[str, Any]]:
    """Returns epsilon if more or fewer strangers' shares were in every sum than the plan counts on."""
    plan, executions = claim.plan, claim.worst.executions
    if not isinstance(plan, DistributedPlan):
        return []
    return [
        {
            "shares": shares,
            "counted": shares == plan.noise.counted,
            "epsilon": round_up(
                epsilon([plan.noise.hypothetical(shares, executions)], plan.delta, plan.relation, plan.accountant)
            ),
        }
        for shares in range(1, n_sites + 1)
    ]


def claims_of(
    job: Job,
    charter: Charter,
    n_units: Mapping[SiteId, int],
    attempts: int,
    statements: Mapping[SiteId, bytes],
    server: Spent | None = None,
) -> tuple[PrivacyClaim, ...]:
    """Returns what a run of real sites promises, as far as its coordinator knows who paid for what.

    A site whose statement does not open, or lists anything but the plan's own events, counts as if it had paid for
    every attempt: its epsilon is then an upper bound, and the report names it as unattested.

    Args:
      job: As the coordinator resolved it.
      charter: In force; has the sites' keys.
      n_units: Training records, or patients, by site, as said at the roll call.
      attempts: Attempts of the whole run.
      statements: What each site answered when asked for its statement. Untrusted.
      server: What the server's own ledger says, if the server added noise.
    """
    debits = {site: _debits(statements.get(site), charter) for site in n_units}
    claims: list[PrivacyClaim] = []
    if job.record_privacy:
        plans = {site: job.record_plan(site, n) for site, n in n_units.items()}
        spent = {
            site: _paid(_drawn(plan, debits[site]), debits[site], attempts)
            for site, plan in plans.items()
            if plan is not None
        }
        claims.append(PrivacyClaim("local", _with_events(spent)))
    shared = job.sum_plan
    if isinstance(shared, DistributedPlan):
        shares = {site: _paid(shared, lines, attempts) for site, lines in debits.items()}
        claims.append(PrivacyClaim("distributed", _with_events(shares)))
    if server is not None:
        claims.append(PrivacyClaim("central", {"server": server}))
    return tuple(claim for claim in claims if claim.spent)


def _with_events(spent: Mapping[SiteId, Spent]) -> dict[str, Spent]:
    return {site: one for site, one in spent.items() if one.events}


def _debits(data: bytes | None, charter: Charter) -> Debits | None:
    try:
        return None if data is None else opened(data, keys_of(charter)).debits
    except FederationError:
        return None


def _drawn(plan: RecordPlan, debits: Debits | None) -> RecordPlan:
    """Returns the plan as a site executed it: how its noise is drawn, only it can say."""
    events = [debit["event"] for debit in debits or () if isinstance(debit["event"], Mapping)]
    whole = any(event.get("arithmetic") == Arithmetic.INTEGER_EXACT for event in events)
    return replace(plan, arithmetic=Arithmetic.INTEGER_EXACT if whole else Arithmetic.FLOAT)


def _paid(plan: PrivacyPlan, debits: Debits | None, attempts: int) -> Spent:
    most = plan.event(plan.steps_per_attempt * min(attempts, plan.max_attempts))
    if debits is None:
        return Spent(plan, (most,))
    try:
        events = merged([event_from_json(debit["event"]) for debit in debits if debit["claim"] == plan.claim])
    except UnsupportedEventError:
        return Spent(plan, (most,))
    fits = all(event == plan.event(event.count) for event in events)
    return Spent(plan, events if fits else (most,))
