"""The asker's side of a chain: its own ends at home, the pieces between at their holders, and what leaves paid for.

The queries are the owner's records on their way out, so before the first byte every crossing is judged by the owner's
own gate, one receiver after the other, and every release with noise is debited.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from clients.chain.conformance import check_chain
from clients.chain.home import Own
from clients.chain.installed import Installed
from clients.chain.judged import check_releases
from clients.chain.opening import Dial, open_chain
from clients.chain.payer import Payer, leaves
from clients.chain.released import Releaser
from clients.chain.stage import Stage
from clients.channel_gate import ChannelGate
from clients.joint.model import SEED, left_by_run
from clients.joint.terms import Queries, Scores
from clients.scores import probabilities
from privacy.errors import ConfigError
from privacy.store.ledger import Ledger
from privacy.store.log import Record
from privacy.store.site_folder import SiteFolder
from strategies.chain_plan import ChainPlan, StageSpec
from strategies.contribution import Vector
from strategies.study import Study
from strategies.task import SiteId


@dataclass(frozen=True)
class Asking:
    """What a site asks a chain with.

    Attributes:
      asset: Whose records queries are, in the ledger.
      dial: Finds the holders.
      record: Puts an entry on the site's log, durably.
      note_ledger: Puts the ledger's head there, before what it paid for leaves.
    """

    folder: SiteFolder
    study: Study
    asset: str
    gate: ChannelGate
    ledger: Ledger = field(repr=False)
    dial: Dial
    record: Callable[[Record], None] = field(repr=False)
    note_ledger: Callable[[], None] = field(repr=False)

    def ask(
        self, plan: ChainPlan, x: Queries, *, run: str, purpose: str, deadline: float
    ) -> tuple[Scores, float | None]:
        """Sends rows through a chain.

        Rows name no patients: under a budget per patient they are priced as if all of them were one patient's.

        Args:
          plan: One that the charter names, for inference, of this site's records.
          x: Shape ``(n, inputs)``. Secret.
          run: Whose trained pieces answer; empty: the initial ones.
          purpose: One that the charter and this site's asset allow.
          deadline: Seconds without a message from a holder after which the chain is over.

        Returns: Scores, shape ``(n, k)``, and the epsilon that this batch cost, ``None`` where nothing has a price.
        Raises: FederationError: Refused or broken; without a release nothing has left.
        """
        if plan.train:
            raise ConfigError("the plan trains its pieces", hint="Make one with `collegium plan --inference`.")
        if plan.owner != self.folder.holder.id:
            raise ConfigError(f"the plan is for records of {plan.owner}, not of {self.folder.holder.id}")
        own, seed = self._ends(plan, run)
        payer = Payer(self.ledger, self.asset, purpose, most_records=max(1, len(x)), note_ledger=self.note_ledger)
        check_releases(self.gate, plan, payer, purpose=purpose, times=1)
        check_chain(plan, secrets.token_bytes, who=plan.owner)
        releaser = Releaser(plan, payer=payer, entropy=secrets.token_bytes, record=self.record)
        releaser.pay(1)
        terms = {"seed": seed, "run": run, "steps": 1, "patience": min(deadline, 60.0)}
        with open_chain(plan, self.dial, own, releaser, purpose=purpose, deadline=deadline, **terms) as driver:
            outputs = driver.infer(torch.from_numpy(np.array(x)))
        return probabilities(outputs), payer.cost(leaves(plan))

    def _ends(self, plan: ChainPlan, run: str) -> tuple[Own, int]:
        """Returns the pieces at home, and the seed of the initial parameters."""
        if not run:
            return Own(*(self._stage(spec, SEED, {}) for spec in (plan.front, plan.tail))), SEED
        job, _, piece = left_by_run(self.folder, self.study, run)
        layout = job.part_of(SiteId(self.folder.holder.id)).piece
        state = layout.unflatten(piece)
        return Own(*(self._stage(spec, job.seed, state) for spec in (plan.front, plan.tail))), job.seed

    def _stage(self, spec: StageSpec | None, seed: int, trained: Mapping[str, Vector]) -> Stage | None:
        if spec is None:
            return None
        stage = Stage(Installed.of_study(self.study).piece(spec, seed, train=False))
        stage.load({key: trained.get(key, value) for key, value in stage.state().items()})
        return stage
