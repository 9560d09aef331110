"""What leaves the owner's organisation on its way through a chain: clipped, noised, priced, and paid for first.

What is promised, per release with noise. A record's values, as one vector, are shortened to the clip C and get
independent Gaussian noise of standard deviation ``noise * C`` on every entry, drawn in float64 and rounded once; so the
claim is *asserted*, as on the project's other floating-point path. The receiver knows which record is whose row:
nothing is amplified by sampling, and one record in the place of another moves a row by up to 2 C. What that costs is in
`clients.chain.payer`; it holds for replaced and for zeroed-out records alike, and is debited under every claim that the
owner's asset has a budget for, beside what training costs.

What is not. The weights of the owner's own pieces count as public: where they were trained on the records that leave,
that needs a claim of its own (`clients.chain.driver` refuses to train them without). Whatever a holder computes from
what it got, and passes on, adds nothing and is not counted again. An unsafe release protects nothing; it is put on
record.

Symbols: ``b`` records, ``C`` clip.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from clients.chain.payer import Leaves, leaves
from clients.float_noise import add_gaussian
from privacy.dp.noise import Entropy
from privacy.errors import PrivacyError
from privacy.store.books import Link
from privacy.store.log import Record
from strategies.chain_plan import ChainPlan, leaving
from strategies.release import AnyRelease, Crossing, Release, UnsafeRelease, release_body

_MARGIN = 1.0 - 2.0**-20  # float64 rounds the product far below it: a shortened row is never longer than C


class Pays(Protocol):
    """Who pays for noise; `clients.chain.payer.Payer`, but where values are made up."""

    def pay(self, what: Leaves) -> tuple[Link, ...]:
        """Debits releases, durably, with the ledger's head on the log. Raises: FederationError: Nothing may leave."""

    def released(self, links: Sequence[Link]) -> None:
        """Marks what was paid for as released."""


class Releaser:
    """Lets values leave home, as often as was paid for.

    Attributes:
      plan: The chain that it is for; public.
    """

    def __init__(
        self, plan: ChainPlan, *, payer: Pays | None, entropy: Entropy, record: Callable[[Record], None]
    ) -> None:
        """Finds out what leaves.

        Args:
          plan: The chain.
          payer: ``None`` is enough where no release has noise.
          entropy: Source of the noise keys, in production ``secrets.token_bytes``.
          record: Writes to the site's log; raises if it cannot: then nothing leaves.

        Raises: PrivacyError: A crossing without a release, or noise that nobody pays for.
        """
        self._leaving = leaving(plan)
        self._releases = tuple(dict.fromkeys(each for each in self._leaving.values() if each is not None))
        self.plan, self._payer, self._entropy, self._record = plan, payer, entropy, record
        self._paid, self._every, self._each = 0, 0, Counter[int]()
        self._links: tuple[Link, ...] = ()
        if self.noised and payer is None:
            raise PrivacyError(
                f"values of {plan.owner} would leave under a release with noise, and no budget pays for it"
            )

    @property
    def noised(self) -> bool:
        """Whether anything leaves with noise."""
        return any(isinstance(each, Release) for each in self._releases)

    def pay(self, times: int) -> None:
        """Debits a schedule that is known in advance, durably; call it before anything leaves.

        Args:
          times: In how many steps, or answers, any one record takes part at most.

        Raises: FederationError: A budget or a release's ``most`` does not cover it, or nothing could be written down.
        """
        if times < 1:
            raise ValueError("a schedule has at least one step")
        if self._payer is not None and self.noised:
            self._links += self._payer.pay(leaves(self.plan, times))
        for release in self._releases:
            self._record(self._noted(release, times))
        self._paid += times

    def admit(self, records: Sequence[int] | None) -> None:
        """Counts one step's records against what was paid for; call it before the step.

        Args:
          records: Their numbers; ``None``: as if it were all of them.

        Raises: PrivacyError: Some record would leave more often than was paid for.
        """
        if not self._releases:
            return
        every = self._every + (records is None)
        each = self._each + Counter(records or ())
        if every + max(each.values(), default=0) > self._paid:
            raise PrivacyError("a record would leave more often than was paid for: nothing leaves")
        self._every, self._each = every, each

    def values(self, what: Crossing, values: Tensor) -> Tensor:
        """Returns what may leave in the place of values.

        Args:
          what: Which crossing from home.
          values: Shape ``(b, …)``, float32, a record's values in its own row. Secret.

        Returns: The same shape; unchanged within the organisation and under an unsafe release.
        Raises: PrivacyError: Nothing was paid for, or the values are of no kind that noise can be added to.
        """
        release = self._leaving[what]
        if release is None:
            return values
        if self._every + len(self._each) == 0:
            raise PrivacyError("values would leave that were not paid for: nothing leaves")
        if isinstance(release, UnsafeRelease):
            return values
        if not values.is_floating_point() or values.dim() < 2:
            raise PrivacyError("noise can be added to rows of real numbers only: nothing leaves")
        return noised(values, release, self._entropy)

    def sent(self) -> None:
        """Marks what was paid for as released, after the last byte; a failure loses the mark and nothing else."""
        if self._payer is not None and self._links:
            links, self._links = self._links, ()
            self._payer.released(links)

    def _noted(self, release: AnyRelease, times: int) -> Record:
        body = {key: f"{value:.17g}" if isinstance(value, float) else value for key, value in
                release_body(release).items()}  # fmt: skip
        kind = "unsafe-release" if isinstance(release, UnsafeRelease) else "release"
        return Record(kind, {**body, "plan": self.plan.digest, "times": times})


def noised(values: Tensor, release: Release, entropy: Entropy) -> Tensor:
    """Shortens every row and adds noise.

    Args:
      values: Shape ``(b, …)``. Secret. A row that is not finite contributes zeros.
      release: Clip and noise.
      entropy: Source of the noise key.

    Returns: The same shape and type. Public once its event is debited.
    """
    rows = values.detach().flatten(1).double()
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    rows = rows * (release.clip * _MARGIN / norms).clamp(max=1.0)
    rows = rows.masked_fill(~(torch.linalg.vector_norm(rows, dim=1, keepdim=True) <= release.clip), 0.0)
    flat = rows.reshape(-1)
    add_gaussian(flat, release.clip * release.noise, entropy)
    released: Tensor = flat.reshape(values.shape).to(values.dtype)
    return released
