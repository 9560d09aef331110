"""An agent tests the noise on its answers before it serves any: no process answers with noise that was not tested.

Made-up score vectors take the path of a model's, `Terms.units`, as those of the heaviest agent; A1 to A4 of
`privacy.conformance` look at the sum that would be opened, and must find the defects that are made on purpose. Nothing
of it is stated to anybody.

Symbols: ``u`` agents, ``k`` classes, ``d`` entries that are looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from clients.joint.model import HOME
from clients.joint.terms import Terms
from privacy.charter.document import Charter
from privacy.conformance.path import Arithmetics, Placement, Vectors
from privacy.conformance.statements import stated
from privacy.conformance.tests import conformance_of
from privacy.dp.noise import Entropy
from privacy.dp.skellam import DistributedNoise
from strategies.study import Study


def check_answers(charter: Charter, study: Study, entropy: Entropy, *, who: str) -> None:
    """Tests the noise that the charter asks of joint answers; nothing to do where it asks for none.

    Args:
      charter: In force as the process begins.
      study: What answers are about.
      entropy: Randomness, in production ``secrets.token_bytes``.
      who: The agent.

    Raises: PrivacyError: A test failed, or one does not find a defect: it may not serve. By chance, once in 10,000.
    """
    allowed = charter.inference
    if allowed is None:
        return
    terms = Terms.of(charter, study, model=HOME, asker=who, purpose=allowed.purposes[0])
    if terms.shares is not None:
        stated([conformance_of(_path_of(terms, terms.shares), entropy)], who=who)


def _path_of(terms: Terms, noise: DistributedNoise) -> Callable[[int, int], "_Answers"]:
    def built(dimension: int, n_units: int) -> _Answers:
        return _Answers(noise, terms, dimension, n_units)

    return built


@dataclass(frozen=True)
class _Answers:
    """Every unit is an agent's answer to a few queries: all class 0 for a row of zeros, else the first is not.

    So a unit moves the sum as far as one answer can be from another. What they all say together is deducted.
    """

    plan: DistributedNoise
    terms: Terms
    dimension: int
    n_units: int
    placement: Placement = "distributed"
    path: Arithmetics = "integer"
    grid: None = None

    @property
    def n_keys(self) -> int:
        """One for each share; more answers than are counted on bring more noise."""
        return max(self.n_units, self.plan.counted)

    @property
    def scale(self) -> float:
        return sqrt(self.n_keys * self.plan.share_variance()) / self.plan.l2

    def release(self, vectors: Vectors, entropy: Entropy) -> Vectors:
        weights = self.terms.weights
        heaviest, one = max(weights, key=lambda agent: weights[agent]), np.zeros((self._queries, self.terms.classes))
        one[:, 0] = 1.0
        other, total = one.copy(), np.zeros(one.size)
        other[0] = np.eye(self.terms.classes)[-1]
        for place in range(self.n_keys):
            answers = other if place < len(vectors) and np.any(vectors[place] != 0) else one
            total += self.terms.units(answers, heaviest, entropy) - self.terms.grid * one.ravel()
        return np.asarray(total[: self.dimension] / self.plan.l2)

    @property
    def _queries(self) -> int:
        return ceil(self.dimension / self.terms.classes)
