"""The holder of a cut model's piece, in a simulation: a thread of the process in which the sites are threads too.

It keeps its piece in the run folder, as `collegium stage serve` keeps it in a site's.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from clients.chain.agent import Leg, OpenChain
from clients.chain.driver import ChainDriver
from clients.chain.held import HELD_FOLDER, Copy, Held
from clients.chain.home import Own
from clients.chain.in_process import in_process
from clients.chain.installed import Installed
from clients.chain.payer import Payer
from clients.chain.released import Releaser
from clients.chain.stage import Learning, Stage
from privacy.dp.noise import Entropy
from privacy.secagg.context import MIN_SITES
from simulations.job import Job
from strategies.chain_job import chain_of
from strategies.chain_plan import ChainPlan
from strategies.contribution import Vector
from strategies.models import build, layout_of


class Holder:
    """Holds the piece between the sites' ends for one run; safe to use from the sites' threads."""

    def __init__(self, job: Job, folder: Path) -> None:
        """Takes its piece of the job's initial model, or what the folder has of it. Raises: ConfigError: No chain."""
        (self._spec,) = chain_of(job, job.sites[0]).held
        self._job, self._installed, self._lock = job, Installed.of_study(job.scenario.study), threading.Lock()
        self._held = Held.of_folder(folder / HELD_FOLDER, Stage(self._piece(), None).state(), fewest=MIN_SITES)

    def model(self, ends: Vector) -> Vector:
        """Returns the whole model, shape ``(d,)``: the sites' ends in it as they are, and the piece as it is here."""
        module = build(self._job.task.model, self._job.task.n_inputs, seed=0)
        arrays = layout_of(module).unflatten(ends)
        with self._lock:
            _, state = self._held.latest()
        held = {name: array.astype(np.float32) for name, array in state.items() if name in arrays}
        return layout_of(module).flatten({**arrays, **held})

    def opener(self, payer: Payer | None) -> OpenChain:
        """Returns how a site reaches this holder.

        Args:
          payer: The site's; ``None`` where nothing leaves with noise.
        """

        def opened(plan: ChainPlan, own: Own, leg: Leg, entropy: Entropy) -> AbstractContextManager[ChainDriver]:
            releaser = Releaser(plan, payer=payer, entropy=entropy, record=lambda _record: None)
            return self._chain(plan, own, leg, releaser)

        return opened

    def _piece(self) -> nn.Module:
        return self._installed.piece(self._spec, self._job.seed, train=True)

    @contextmanager
    def _chain(self, plan: ChainPlan, own: Own, leg: Leg, releaser: Releaser) -> Iterator[ChainDriver]:
        stage = Stage(self._piece(), Learning(plan.optimizer, leg.learning_rate))
        with self._lock:
            stage.load(self._held.begin(leg.round))
        releaser.pay(leg.steps)
        with in_process(plan, own, stage, releaser) as driver:
            yield driver
        with self._lock:
            self._held.finish(leg.round, Copy(leg.attempt, leg.weight, plan.owner, stage.state()))
