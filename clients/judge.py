"""A site's own policy as a judge at its gate: the facts come from the site's own ledger, settings and clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from clients.chain.payer import event_under, executed, leaves, ledger_name
from clients.gate import PolicyRefusalError
from privacy.charter.document import Charter
from privacy.dp.events import Event, merged
from privacy.dp.filters import Filter
from privacy.dp.plan import PrivacyPlan, SitePlan
from privacy.errors import PrivacyError
from privacy.policy.engine import Policy
from privacy.policy.floor import check_floor
from privacy.policy.requests import Protection, TrainingFacts, training_request
from privacy.secagg.context import RoundContext, thresholds
from privacy.store.books import Books
from privacy.store.ledger import Ledger
from privacy.store.site_settings import AssetSettings
from strategies.chain_job import chain_of
from strategies.invitation import Invitation
from strategies.job import Job
from strategies.task import SiteId


@dataclass(frozen=True)
class SiteJudge:
    """Asks the hard floor, the head-room of the ledger and the site's Cedar policy.

    Attributes:
      site: Whose it is.
      clock: The site's own time, in its own zone.
      most_records: Of one patient, in the training records: what crosses a chain is priced by it. Secret.
    """

    site: SiteId
    charter: Charter
    policy: Policy
    assets: Mapping[str, AssetSettings]
    ledger: Ledger = field(repr=False)
    clock: Callable[[], datetime]
    most_records: int = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the policy, hex."""
        return self.policy.digest

    def judge(
        self, invitation: Invitation, job: Job, plans: Sequence[PrivacyPlan], context: RoundContext | None = None
    ) -> None:
        """Refuses what the floor, the ledger or the policy does not allow; see `clients.gate.Judge`.

        Raises: PrivacyError: Refused, with the one reason.
        """
        facts = self._facts(invitation, job, plans)
        if context is not None:
            limits = context.thresholds
            facts = replace(
                facts,
                cohort=len(context.cohort),
                survivors=limits.min_survivors,
                threshold=limits.t,
                cover=limits.min_cover,
            )
        check_floor(facts)
        verdict = self.policy.decide(training_request(facts))
        if not verdict.allowed:
            raise PolicyRefusalError(verdict.reasons)

    def _facts(self, invitation: Invitation, job: Job, plans: Sequence[PrivacyPlan]) -> TrainingFacts:
        name = invitation.asset
        own, listed = self.assets.get(name), self.charter.assets.get(name)
        if own is None or listed is None or invitation.purpose not in own.purposes:
            raise PrivacyError(f"this site has no asset {name} for {invitation.purpose}")
        limits = self.charter.floors.raised(thresholds(len(job.sites)))
        return TrainingFacts(
            server=self.charter.server.id,
            asset=name,
            sensitivity=own.sensitivity,
            purposes=own.purposes,
            epsilon_cap=listed.epsilon if own.epsilon is None else min(own.epsilon, listed.epsilon),
            federation=invitation.federation,
            strategy=invitation.strategy,
            study=invitation.study,
            application=invitation.application,
            purpose=invitation.purpose,
            secagg=job.secagg,
            cohort=len(job.sites),
            survivors=limits.min_survivors,
            threshold=limits.t,
            cover=limits.min_cover,
            rounds=job.max_attempts,
            protection=self._protection(invitation, job, plans),
            moment=self.clock(),
        )

    def _protection(self, invitation: Invitation, job: Job, plans: Sequence[PrivacyPlan]) -> Protection:
        central = (job.sum_plan,) if isinstance(job.sum_plan, SitePlan) else ()
        every = (*plans, *central)
        if not every:
            return Protection()
        after = [self._after(invitation, job, plan) for plan in plans]
        return Protection(
            settings=job.privacy,
            epsilon=max(plan.target for plan in every),
            # Where the server alone adds noise, this site's records are not what is protected, nor paid for.
            epsilon_after=max(after, default=max(plan.target for plan in every)),
            delta=max(plan.delta for plan in every),
            clip=max(plan.clip for plan in every),
            noise=min(plan.noise_multiplier for plan in every),
        )

    def _after(self, invitation: Invitation, job: Job, plan: PrivacyPlan) -> Decimal:
        """Returns what the asset will have cost under the plan's claim once this run is over, all its retries used."""
        with self.ledger.reading() as books:
            asset = books.asset(invitation.asset)
            budget, before = asset.budgets.get(plan.claim), books.spent(asset.name, plan.claim)
            to_come = self._to_come(books, asset.name, invitation.run, job, plan)
        if not isinstance(budget, Filter):
            raise PrivacyError(f"the ledger has no budget of {invitation.asset} for the claim {plan.claim}")
        spent = budget.spent(merged([*before, *to_come]))
        if spent > budget.limit:
            raise PrivacyError(
                f"the run would cost more than what is left of the budget of {invitation.asset} ({plan.claim})",
                hint="collegium site ledger shows what was spent.",
            )
        return Decimal(str(budget.epsilon_of(spent)))

    def _to_come(self, books: Books, asset: str, run: str, job: Job, plan: PrivacyPlan) -> list[Event]:
        """Returns what the run may still cost: executions that are left to the plan, and what crosses with noise."""
        left = max(0, plan.max_executions - executed(books, asset, run, plan.claim))
        found: list[Event] = [plan.event(left)] if left else []
        if job.chain is None:
            return found
        # One execution is one step. An attempt that broke off paid for what crossed and not for its steps: so no more
        # is expected of a release than it allows for ever.
        for release, n in leaves(chain_of(job, self.site), left).items():
            count = min(n, release.most - executed(books, asset, ledger_name(release), plan.claim))
            found += [event_under(plan.claim, release, count, self.most_records)] if count > 0 else []
        return found
