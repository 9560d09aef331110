"""A real site's way to the holder of its chain, in a run: its own gate first, then the line, then the debit.

The gate is asked about every receiver and release before the holder is dialled; the debit is durable before the first
value of a record leaves, and stays if the chain breaks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clients.chain.agent import Leg
from clients.chain.driver import ChainDriver
from clients.chain.home import Own
from clients.chain.judged import check_releases
from clients.chain.opening import Dial, open_chain
from clients.chain.payer import Payer
from clients.chain.released import Releaser
from clients.channel_gate import ChannelGate
from privacy.dp.noise import Entropy
from privacy.store.log import Record
from strategies.chain_plan import ChainPlan
from strategies.invitation import Invitation
from strategies.job import Job


@dataclass(frozen=True)
class Outgoing:
    """Opens the chain of a run, see `clients.chain.agent.OpenChain`.

    Attributes:
      grant: The invitation as it came, signed: why the holder may hold a piece for this site.
      invitation: The same, read and let pass by this site.
      payer: Of the asset that the invitation names.
      dial: Finds the holder.
      record: Puts an entry on the site's log, durably.
    """

    grant: bytes = field(repr=False)
    invitation: Invitation
    job: Job
    gate: ChannelGate
    payer: Payer = field(repr=False)
    dial: Dial
    record: Callable[[Record], None] = field(repr=False)

    @contextmanager
    def __call__(self, plan: ChainPlan, own: Own, leg: Leg, entropy: Entropy) -> Iterator[ChainDriver]:
        """Lends the driver. Raises: FederationError: The gate, a budget or the holder refuses."""
        invitation = self.invitation
        check_releases(self.gate, plan, self.payer, purpose=invitation.purpose, times=leg.steps, study=invitation.study)
        releaser = Releaser(plan, payer=self.payer, entropy=entropy, record=self.record)
        terms: dict[str, Any] = {
            "learning_rate": leg.learning_rate,
            "steps": leg.steps,
            "seed": self.job.seed,
            "run": invitation.run,
            "round": leg.round,
            "attempt": leg.attempt,
            "weight": leg.weight,
            "grant": self.grant,
        }
        with open_chain(plan, self.dial, own, releaser, purpose=invitation.purpose, **terms) as driver:
            releaser.pay(leg.steps)
            yield driver
