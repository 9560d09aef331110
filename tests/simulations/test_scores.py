import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from clients.records import Records
from clients.scores import Scorer, hanley_mcneil, mean_known, wilson
from privacy.audit import schemas
from privacy.audit.verify import verify
from simulations.evidence import predicate
from simulations.job import resolve
from simulations.options import Options
from simulations.summary import to_json
from strategies.contribution import Vector
from strategies.models import build, to_vector
from strategies.task import Feature, ModelSpec, SiteId, Target, Task, Training
from tests.simulations import finished


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
    assert (scorer.constant(0.0, records), scorer.constant(1.0, records)) == (0.5, 0.5)
    auc = Scorer(resolve(Options(scenario="banks", privacy="none")).task)
    assert auc.task.metric == "auc"
    assert roc_auc_score(records.y, x[:, 0]) == 0.75


FOUR = tuple(Feature(f"x{place}", "continuous") for place in range(4))
EXITS = ModelSpec("mlp", (3, 2), "torch", exits=True, outputs=3)


def scorer(spec: ModelSpec) -> Scorer:
    target = Target("y", classes=max(2, spec.outputs))
    return Scorer(Task(FOUR, target, spec, Training(rounds=1, local_steps=1, learning_rate=1.0)))


def drawn(spec: ModelSpec) -> tuple[Vector, Records]:
    noise = np.random.default_rng(3)
    x = noise.normal(size=(60, 4)).astype(np.float32)
    records = Records(x, noise.integers(0, max(2, spec.outputs), 60).astype(np.float32))
    return noise.normal(size=to_vector(build(spec, 4, 0)).size).astype(np.float32), records


def exits_by_hand(model: Vector, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Logits of both exits of `EXITS`; parameters in the order of blocks, then of exits."""
    sizes = [(3, 4), (3,), (2, 3), (2,), (3, 3), (3,), (3, 2), (3,)]
    w1, b1, w2, b2, v1, c1, v2, c2 = (
        part.reshape(size)
        for part, size in zip(np.split(model, np.cumsum([math.prod(size) for size in sizes])[:-1]), sizes, strict=True)
    )
    first = np.maximum(x @ w1.T + b1, 0)
    return [first @ v1.T + c1, np.maximum(first @ w2.T + b2, 0) @ v2.T + c2]


def test_scores_of_several_classes_and_exits() -> None:
    (model, records), which = drawn(EXITS), scorer(EXITS)
    early, late = exits_by_hand(model, records.x)
    scores = [float(accuracy_score(records.y, logits.argmax(axis=1))) for logits in (early, late)]
    assert scores[0] != scores[1]
    assert [which.score_exit(model, records, index) for index in (0, 1)] == scores
    assert which.score(model, records) == scores[1]
    shares = np.exp(late.astype(np.float64))
    expected = log_loss(records.y, shares / shares.sum(axis=1, keepdims=True))
    assert which.loss(model, records) == pytest.approx(expected, rel=1e-5)
    assert which.interval(scores[1], records) == wilson(scores[1], 60)
    assert which.constant(2.0, records) == float((records.y == 2).mean())


def test_a_part_is_scored_as_its_own_model() -> None:
    (model, records), front = drawn(EXITS), EXITS.part(depth=1)
    piece = np.concatenate([model[:15], model[23:35]])  # the first block and its exit
    part = Scorer(scorer(EXITS).task, front)
    assert part.score(piece, records) == scorer(EXITS).score_exit(model, records, 0)
    with pytest.raises(IndexError):
        part.score_exit(piece, records, 1)


def test_the_area_is_of_the_last_exits_logit() -> None:
    spec = ModelSpec("mlp", (3, 2), "torch", exits=True)
    model, records = drawn(spec)
    which = Scorer(replace(scorer(spec).task, metric="auc"))
    one = Scorer(which.task, spec.part(depth=1))
    piece = np.concatenate([model[:15], model[23:27]])
    assert which.score_exit(model, records, 0) == one.score(piece, records)
    assert which.score(model, records) == which.score_exit(model, records, 1)
    assert which.score(model, records) != which.score_exit(model, records, 0)
    assert which.constant(1.0, records) == 0.5


def test_there_is_no_area_without_both_classes_and_numbers() -> None:
    spec = ModelSpec("logistic")
    model, records = drawn(spec)
    area = Scorer(replace(scorer(spec).task, metric="auc"))
    share = scorer(spec)
    ill = replace(records, y=np.ones_like(records.y))
    assert area.score(model, records) is not None
    assert area.score(model, ill) is area.judged(model, ill)[0] is None
    assert area.score_probabilities(area.judged(model, ill)[1], ill) is None
    assert area.interval(None, ill) is None
    assert area.score(np.full_like(model, 3e38), records) is None
    assert share.score(model, ill) is not None


def test_a_mean_is_of_the_scores_that_there_are() -> None:
    assert mean_known([0.5, None, 0.7]) == 0.6
    assert mean_known([None, None]) is None


def test_a_run_is_told_of_where_a_site_has_no_score(tmp_path: Path) -> None:
    """Table, object, signed report and page have a dash, and every mean leaves the site out."""
    example = Path(__file__).parents[2] / "docs" / "examples" / "own-data"
    for name in ("clinics.toml", "north.csv", "harbour.csv", "valley.csv"):
        (tmp_path / name).write_text((example / name).read_text("utf-8"))
    head, *rows = (tmp_path / "valley.csv").read_text().splitlines()
    assert head.endswith("ill")
    (tmp_path / "valley.csv").write_text("\n".join([head, *(row.rpartition(",")[0] + ",1" for row in rows)]) + "\n")
    (tmp_path / "auc.toml").write_text('based_on = "clinics.toml"\nname = "auc"\ntitle = "x"\nmetric = "auc"\n')
    found = finished.outcome(tmp_path / "run", str(tmp_path / "auc.toml"), rounds=1)
    known = [found.together[SiteId(site)] for site in ("north", "harbour")]
    assert found.together[SiteId("valley")] is None
    assert found.means()["together"] == pytest.approx(sum(score or 0.0 for score in known) / 2)
    told = to_json(found)
    schemas.check("simulate-v1", told)
    assert [site["interval"] is None for site in told["sites"]] == [False, False, True]
    text = finished.shown(found)
    assert "valley 39 21 - - - - - -" in text
    assert "in no mean, where all test rows have one class: valley." in text
    folder = Path(found.folder)
    signed = predicate(found, model_sha256="0" * 64, signer={}, cosigners={})
    assert signed["utility"]["sites"][2]["interval"] is signed["utility"]["sites"][2]["together"] is None
    assert "together –" in (folder / "report.html").read_text("utf-8")
    verdict = verify(
        (folder / "report.html").read_bytes(),
        self_signed=True,
        transcript=(folder / "transcript" / "secagg.jsonl").read_bytes(),
    )
    assert {claim.id for claim in verdict.claims if claim.verdict != "holds"} == {"model.digest"}, verdict.lines()
