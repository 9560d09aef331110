"""Trains a copy of a run's job on other records, by the path of every run: gate, ledgers, masks, noise, all of it.

A copy has a folder, keys, a charter and ledgers of its own, which are gone when it ends: the run that is audited and
the budgets of its records are not touched. It pays as the run did, from accounts that nobody keeps.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import Context, Message

from clients.app import Member, build
from clients.sites import site_of
from privacy.dp.noise import Entropy
from privacy.store.run_folder import RunFolder
from server.rounds import RoundRecord
from simulations.accounts import Accounts
from simulations.conduct import train_over
from simulations.data.datasets import SiteData
from simulations.demo_charter import establish
from simulations.holder import Holder
from simulations.job import Job
from simulations.local_grid import LocalGrid, SiteApp
from simulations.members import PRIVATE_FOLDER, fixed_member, member_of
from simulations.options import Options
from simulations.pieces import Pieces
from strategies.task import SiteId

Overhear = Callable[[SiteId, Message], None]
"""Told every message that a site sends."""


def train_copy(
    job: Job,
    data: Mapping[SiteId, SiteData],
    *,
    entropy: Entropy = secrets.token_bytes,
    overhear: Overhear | None = None,
) -> Pieces:
    """Runs a job on these records, in this process and in a folder that is gone afterwards.

    Args:
      job: Without the faults that it may ask for.
      data: Of each of the job's sites. Secret.
      entropy: Randomness of the sites' noise and sampling; the server's is always the system's.
      overhear: What the server sees, to attack it.

    Returns: The delivered model, as every site has it.
    Raises: FederationError: As a run.
    """
    with TemporaryDirectory(prefix="collegium-audit-") as place:
        folder = RunFolder.create(Path(place) / "copy")
        accounts = Accounts(folder.path, "copy")
        if job.division.private:
            (folder.path / PRIVATE_FOLDER).mkdir(mode=0o700)
        establish(job, folder, datetime.now(UTC))
        accounts.prepare(job, [site_of(job, site, data[site].train) for site in job.sites], Options())
        holder = None if job.chain is None else Holder(job, folder.path)
        members = [member_of(job, data[site], folder.path, accounts, holder) for site in job.sites]
        apps = {node: _app(member, entropy, overhear) for node, member in enumerate(members, 1)}
        grid = LocalGrid(apps, run_id=secrets.randbits(62) + 1, node_configs={node: {} for node in apps})
        try:
            trained = train_over(grid, job, folder, accounts, _Silent(), loss_of=_unasked, sleep=time.sleep)
        finally:
            grid.close()
        return Pieces.of_run(job, trained.model, folder.path)


def _app(member: Member, entropy: Entropy, overhear: Overhear | None) -> SiteApp:
    app = build(fixed_member(member), entropy=entropy)
    if overhear is None:
        return app

    def overheard(message: Message, context: Context) -> Message:
        reply = app(message, context)
        overhear(member.site.id, reply)
        return reply

    return overheard


def _unasked(_model: object) -> float:
    return 0.0


class _Silent:
    """Nobody watches a copy."""

    def step(self, text: str) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def round(self, record: RoundRecord, planned: int, loss: float) -> None:
        """Says nothing."""
