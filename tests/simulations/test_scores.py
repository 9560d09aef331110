import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from clients.records import Records
from simulations.job import resolve
from simulations.options import Options
from simulations.scores import Scorer, hanley_mcneil, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 16), (13, 16), (82, 104), (45, 45)])
def test_wilson_equals_scipy(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_hanley_mcneil_equals_its_published_example() -> None:
    """Hanley and McNeil 1982, table II: area .893, 51 abnormal and 58 normal cases, standard error .0327."""
    low, high = hanley_mcneil(0.893, 51, 58)
    assert (high - low) / 2 / 1.959964 == pytest.approx(0.0325, abs=5e-4)


def test_scores_of_a_known_model() -> None:
    task = resolve(Options()).task
    x = np.zeros((4, task.n_inputs), dtype=np.float32)
    x[:, 0] = [-2, -1, 1, 2]
    records = Records(x, np.array([0, 1, 0, 1], dtype=np.float32))
    model = np.zeros(task.n_inputs + 1, dtype=np.float32)
    model[0] = 1.0
    scorer = Scorer(task)
    assert scorer.score(model, records) == 0.5
    losses = [math.log1p(math.exp(-z if y else z)) for z, y in zip([-2, -1, 1, 2], [0, 1, 0, 1], strict=True)]
    assert scorer.loss(model, records) == pytest.approx(sum(losses) / 4, abs=1e-6)
    auc = Scorer(resolve(Options(scenario="banks", privacy="none")).task)
    assert auc.task.metric == "auc"
    assert roc_auc_score(records.y, x[:, 0]) == 0.75
