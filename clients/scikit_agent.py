"""Training code of a site that uses scikit-learn: a stranger to torch, in the same federation.

Nothing but `partial_fit` is asked of scikit-learn: no gradient per record is to be had there, so no noise in the steps.
The optimiser starts afresh in every round, without momentum and without weight decay, so that what happens between the
parameters received and the parameters sent is plain stochastic gradient descent on the common loss.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from clients.agent import LocalWork
from clients.batches import batch_at
from clients.records import Records
from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.models import build, layout_of
from strategies.task import ModelSpec, SiteId, Training

_Arrays: TypeAlias = list[npt.NDArray[np.float64]]
_Batch: TypeAlias = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]

_log = logging.getLogger(__name__)
_CLASSES = (0, 1)
_HINT = "Give the site the torch agent."


@dataclass(frozen=True, eq=False)
class ScikitAgent:
    """Trains a logistic model with ``SGDClassifier``, an MLP of one hidden layer with ``MLPClassifier``.

    A logistic model goes over the rows of each local step's batch one at a time, in a seeded order; an MLP takes each
    batch as one gradient step, which is the step torch takes. Both compute in float64. The result is a function of
    the arguments, ``seed``, ``site`` and the round.

    Attributes:
      model: The piece.
      training: With the site's own settings in place.
      records: Training records. Secret.
      seed: Orders batches and rows.

    Raises: ConfigError: A model, an optimizer or an installation that this cannot be done with.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"none", "site", "distributed"})
    plan: ClassVar[None] = None
    site: SiteId
    model: ModelSpec
    n_inputs: int
    training: Training
    records: Records = field(repr=False)
    seed: int

    def __post_init__(self) -> None:
        if not _fits(self.model, self._layout):
            raise ConfigError(
                f"the scikit-learn agent of {self.site} trains logistic models and an mlp of one hidden layer,"
                " with one output",
                hint=_HINT,
            )
        if self.training.optimizer != "sgd":
            raise ConfigError(f"the scikit-learn agent of {self.site} has optimizer sgd only", hint=_HINT)
        try:
            import sklearn  # noqa: F401, PLC0415 - an extra that other sites do without
        except ModuleNotFoundError:
            raise ConfigError(
                f"the scikit-learn agent of {self.site} needs scikit-learn, which is not installed",
                hint="Install scikit-learn, or give the site the torch agent.",
            ) from None

    def train(self, start: Vector, work: LocalWork) -> Vector:
        """Goes through ``local_steps`` batches. See `Agent.train`."""
        import threadpoolctl  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with sklearn, and without types

        if work.rule.proximal or work.rule.control:
            raise ConfigError(f"the scikit-learn agent of {self.site} takes plain steps only", hint=_HINT)
        before = [array.astype(np.float64) for array in self._layout.unflatten(start).values()]
        fit = _fit_linear if self.model.kind == "logistic" else _fit_mlp
        try:
            with threadpoolctl.threadpool_limits(limits=1):  # one thread gives the same sums in every engine
                after = fit(before, self._batches(work.round_number), self.training.learning_rate)
        except ValueError:  # scikit-learn's, of records or parameters that are not finite
            _log.warning("scikit-learn stopped at %s: records or parameters are not finite", self.site)
            return np.full_like(start, np.nan)  # for whoever takes the result to refuse, once that is paid for
        with np.errstate(over="ignore"):  # an infinite parameter is for whoever takes the result to refuse
            return np.concatenate([array.reshape(-1) for array in after]).astype(np.float32)

    def _batches(self, round_number: int) -> Iterator[_Batch]:
        steps, n_records = self.training.local_steps, len(self.records)
        for step in range((round_number - 1) * steps, round_number * steps):
            rows = batch_at(seed=self.seed, site=self.site, step=step, n_records=n_records, batch=self.training.batch)
            if self.model.kind == "logistic":
                rows = rows[self._order(step, len(rows))]
            yield self.records.x[rows].astype(np.float64), self.records.y[rows].astype(np.int64)

    def _order(self, step: int, n_rows: int) -> npt.NDArray[np.int64]:
        """Shuffles a pass by ourselves: scikit-learn's own order may change with its version."""
        key = hashlib.sha256(f"collegium/scikit-rows/v1|{self.seed}|{self.site}|{step}".encode()).digest()[:16]
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big"))).permutation(n_rows)

    @property
    def _layout(self) -> Layout:
        return layout_of(build(self.model, self.n_inputs, seed=0))


def _fits(model: ModelSpec, layout: Layout) -> bool:
    """Says whether the arrays are weight and bias of one layer, or of two, with one output at the end."""
    ranks = [len(shape) for shape in layout.shapes]
    return ranks == [2, 1] * (1 if model.kind == "logistic" else 2) and layout.shapes[-1] == (1,)


def _fit_linear(before: _Arrays, batches: Iterator[_Batch], rate: float) -> _Arrays:
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - an extra that other sites do without

    model = SGDClassifier(loss="log_loss", alpha=0.0, learning_rate="constant", eta0=rate, shuffle=False)
    _open(model, before[0].shape[1])
    model.coef_, model.intercept_ = before
    for x, y in batches:
        model.partial_fit(x, y)
    return [model.coef_, model.intercept_]


def _fit_mlp(before: _Arrays, batches: Iterator[_Batch], rate: float) -> _Arrays:
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 - an extra that other sites do without

    model = MLPClassifier(
        (len(before[1]),), solver="sgd", alpha=0.0, learning_rate_init=rate, momentum=0.0, shuffle=False, random_state=0
    )
    _open(model, before[0].shape[1])
    for array, value in zip(_in_torchs_order(model), before, strict=True):
        array[...] = value  # in place: the optimiser holds these very arrays
    for x, y in batches:
        model.set_params(batch_size=len(y))  # one step for each batch
        model.partial_fit(x, y)
    return _in_torchs_order(model)


def _in_torchs_order(model: Any) -> _Arrays:
    """Returns views of an MLP's arrays: layer by layer, weights transposed to outputs by inputs."""
    return [array for w, b in zip(model.coefs_, model.intercepts_, strict=True) for array in (w.T, b)]


def _open(model: Any, n_inputs: int) -> None:
    """Makes an estimator's arrays, and tells it of both classes: a batch may have records of one only."""
    model.partial_fit(np.zeros((1, n_inputs)), [0], classes=_CLASSES)
