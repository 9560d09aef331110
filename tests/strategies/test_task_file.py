"""Reading a task: what is accepted, what defaults mean, and that every mistake is named with its place."""

import math
import tomllib
from typing import Any

import pytest

from privacy.errors import ConfigError
from strategies.task import Feature, ModelSpec, Reference, Target, Training
from strategies.task_file import parse_task

GOOD = """
metric = "auc"
patient = "who"
target = { name = "ill", threshold = 1 }
features = [
  { name = "age", kind = "continuous", range = [18, 100], centre = 55, scale = 10, clamp = 2 },
  { name = "sex", kind = "binary", missing = [9] },
  { name = "chol", kind = "continuous", range = [60, 700], missing = [0, "?"] },
  { name = "cp", kind = "categorical", categories = [1, 2, 3, 4] },
]
[model]
kind = "mlp"
hidden = 8
[training]
rounds = 15
local_steps = 2
learning_rate = 0.3
batch = 4
clip = 0.5
retries = 0
optimizer = "adam"
reference = { epochs = 50, learning_rate = 0.001, batch = 4, optimizer = "adam" }
[strategies.fedadam]
learning_rate = 0.01
server_learning_rate = 0.1
"""


def document(**changes: Any) -> dict[str, Any]:
    """Returns the good document with values replaced at paths such as ``training__rounds``."""
    data = tomllib.loads(GOOD)
    for path, value in changes.items():
        place: Any = data
        *above, last = path.split("__")
        for key in above:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value
    return data


def test_everything_given_arrives() -> None:
    task = parse_task(document())
    assert task.features == (
        Feature("age", "continuous", 18.0, 100.0, 55.0, 10.0, 2.0),
        Feature("sex", "binary", missing=(9,)),
        Feature("chol", "continuous", 60.0, 700.0, 380.0, 320.0, 3.0, missing=(0, "?")),
        Feature("cp", "categorical", categories=(1, 2, 3, 4)),
    )
    assert task.n_inputs == 6
    assert task.target == Target("ill", 1.0)
    assert task.model == ModelSpec("mlp", (8,), "torch")
    reference = Reference(50, 0.001, 4, "adam")
    assert task.training == Training(15, 2, 0.3, 4, clip=0.5, retries=0, optimizer="adam", reference=reference)
    assert (task.metric, task.scaling, task.patient) == ("auc", "public", "who")
    assert task.training_for("fedadam").learning_rate == 0.01
    assert task.settings_for("fedadam") == {"server_learning_rate": 0.1}
    assert task.training_for("fedavg") == task.training
    assert task.settings_for("fedavg") == {}


def test_defaults() -> None:
    data = document(model={"kind": "logistic"}, training={"rounds": 1, "learning_rate": 1})
    del data["metric"], data["patient"], data["strategies"], data["target"]["threshold"]
    task = parse_task(data)
    assert task.training == Training(1, 1, 1.0)
    assert task.model == ModelSpec("logistic", (), "zero")
    assert (task.metric, task.target.threshold, task.strategy_settings) == ("accuracy", 0.0, {})
    assert not task.patient


def test_own_scaling_leaves_values_alone() -> None:
    features = [{"name": "age", "kind": "continuous"}, {"name": "cp", "kind": "categorical", "categories": [1, 2]}]
    age, cp = parse_task(document(scaling="own", features=features)).features
    assert (age.low, age.high, age.centre, age.scale, age.clamp) == (-math.inf, math.inf, 0.0, 1.0, math.inf)
    assert cp.categories == (1, 2)


def test_pixels_in_one_line_and_a_class_each() -> None:
    pixels = {"name": "pixel{}", "kind": "continuous", "range": [0, 16], "centre": 8, "scale": 8, "count": 64}
    model = {"kind": "cnn", "channels": [8, 16], "image": [1, 8, 8], "exits": True}
    task = parse_task(
        document(features=[pixels], target={"name": "digit", "classes": 10}, model=model, metric="accuracy")
    )
    assert [feature.name for feature in task.features] == [f"pixel{index}" for index in range(64)]
    assert {feature.high for feature in task.features} == {16.0}
    assert task.n_inputs == 64
    assert task.target == Target("digit", classes=10)
    assert task.model == ModelSpec("cnn", (8, 16), "torch", exits=True, image=(1, 8, 8), outputs=10)
    flat = parse_task(document(target={"name": "ill", "classes": 3}, model={"kind": "logistic"}, metric="accuracy"))
    assert flat.model == ModelSpec("logistic", outputs=3)
    deep = parse_task(document(model={"kind": "mlp", "hidden": [128, 64]}))
    assert deep.model == ModelSpec("mlp", (128, 64), "torch")
    literal = parse_task(document(features=[{"name": "{}", "kind": "binary"}]))
    assert literal.features[0].name == "{}"


NAN, INF = math.nan, math.inf
BAD: dict[str, dict[str, Any]] = {
    # place and problem as they must appear: the change that causes them
    "features[2].range: is empty": {"features__2__range": [700, 60]},
    "features[0].range: is empty: 18 is not below 18": {"features__0__range": [18, 18]},
    "features[0].range: must be two finite numbers": {"features__0__range": [18, INF]},
    "features[0].range: must be two": {"features__0__range": [18]},
    "features[1].kind: 'ordinal' is not one of": {"features__1__kind": "ordinal"},
    "features[0].scale: must be greater than 0, not 0": {"features__0__scale": 0},
    "features[0].scale: must be a finite number": {"features__0__scale": NAN},
    "features[0].clamp: must be greater": {"features__0__clamp": -1},
    "features[0].centre: must be a finite number, not 'x'": {"features__0__centre": "x"},
    "features[0].centre: must be a finite number, not True": {"features__0__centre": True},
    "features[0].center: unknown key": {"features__0__center": 1},
    "features[1].range: unknown key": {"features__1__range": [0, 1]},
    "features[2].name: 'age' is there twice": {"features__2__name": "age"},
    "features[1].name: 'ill' is the target": {"features__1__name": "ill"},
    "features[1].name: must not be empty": {"features__1__name": " "},
    "features[1].name: has a character that cannot be seen": {"features__1__name": "a\u200bge"},
    "features[1].name: must be text": {"features__1__name": 3},
    "features[3].categories: must list at least two": {"features__3__categories": [1]},
    "features[3].categories: holds a value twice": {"features__3__categories": [1, 1.0]},
    "features[3].categories: must be all numbers": {"features__3__categories": [1, "2"]},
    "features[3].categories: must hold finite": {"features__3__categories": [1, NAN]},
    "features[3].missing: 2 is a category too": {"features__3__missing": [2]},
    "features[2].missing: must be a list": {"features__2__missing": 0},
    "features[4]: must be a table": {"features": [*tomllib.loads(GOOD)["features"], "age"]},
    "features: must have at least one entry": {"features": []},
    "features: must be a list": {"features": {}},
    "features[0].range: has no effect": {"scaling": "own"},
    "scaling: 'private' is not one of": {"scaling": "private"},
    "metric: 'f1' is not one of": {"metric": "f1"},
    "patient: 'age' is a feature or the target": {"patient": "age"},
    "patient: 'ill' is a feature or the target": {"patient": "ill"},
    "patient: must be text, not 3": {"patient": 3},
    "target.threshold: must be a finite": {"target__threshold": INF},
    "target.column: unknown key": {"target__column": "x"},
    "target.threshold: parts two classes": {"target__classes": 10},
    "target.classes: must be at least 3, not 2": {"target": {"name": "ill", "classes": 2}},
    "target.classes: must be a whole number": {"target": {"name": "ill", "classes": 3.5}},
    "metric: auc is of two classes": {"target": {"name": "ill", "classes": 3}},
    "features[0].count: needs {} once in the name": {"features__0__count": 2},
    "features[0].count: needs {}": {"features__0__count": 2, "features__0__name": "{}{}"},
    "features[0].count: must be at least 1": {"features__0__count": 0},
    "features[1].count: is for continuous features, and this one is binary": {"features__1__count": 2},
    "features[1].name: 'x1' is there twice": {
        "features": [
            {"name": "x{}", "kind": "continuous", "range": [0, 1], "count": 2},
            {"name": "x1", "kind": "binary"},
        ]
    },
    "features[0].name: 'ill' is the target": {
        "target__name": "ill",
        "features": [{"name": "ill", "kind": "binary"}],
    },
    "features[0].name: 'x1' is the target": {
        "target__name": "x1",
        "features": [{"name": "x{}", "kind": "continuous", "range": [0, 1], "count": 2}],
    },
    "model.kind: 'tree' is not one of": {"model__kind": "tree"},
    "model.hidden: must be a whole number of at least 1": {"model__hidden": 0},
    "model.hidden: must be a whole number of at least 1, or": {"model__hidden": [8, 0]},
    "model.hidden: must be a whole number of": {"model__hidden": []},
    "model.hidden: must be a whole": {"model__hidden": [8, True]},
    "model.hidden: must be": {"model__hidden": 1.5},
    "model.exits: must be true or false, not 1": {"model__exits": 1},
    "model.exits: unknown key": {"model": {"kind": "logistic", "exits": True}},
    "model.channels: unknown key": {"model__channels": [4]},
    "model.channels: is missing": {"model": {"kind": "cnn", "image": [1, 2, 3]}},
    "model.image: is missing": {"model": {"kind": "cnn", "channels": 4}},
    "model.image: must be three whole numbers": {"model": {"kind": "cnn", "channels": [4], "image": [2, 3]}},
    "model: an image of 1 x 2 x 2 values, and the features give 6": {
        "model": {"kind": "cnn", "channels": [4], "image": [1, 2, 2]}
    },
    "model: channels [6]: 4 at a time": {"model": {"kind": "cnn", "channels": [6], "image": [1, 2, 3]}},
    "model: 3 blocks are too many": {"model": {"kind": "cnn", "channels": [4, 4, 4], "image": [1, 2, 3]}},
    "model.init: 'zero' is not one of: torch": {"model__init": "zero"},
    "model: must be a table": {"model": "logistic"},
    "training.rounds: must be at least 1, not 0": {"training__rounds": 0},
    "training.rounds: must be a whole number, not 1.5": {"training__rounds": 1.5},
    "training.rounds: must be a whole number, not True": {"training__rounds": True},
    "training.local_steps: must be at least 1": {"training__local_steps": 0},
    "training.learning_rate: must be greater than 0": {"training__learning_rate": 0.0},
    "training.batch: must be at least 0": {"training__batch": -1},
    "training.clip: must be greater than 0": {"training__clip": 0},
    "training.clip: must be a finite number": {"training__clip": INF},
    "training.retries: must be at least 0": {"training__retries": -1},
    "training.reference.epochs: must be at least 1": {"training__reference__epochs": 0},
    "training.reference.steps: unknown key": {"training__reference__steps": 1},
    "strategies.fedadam.tau: must be a finite": {"strategies__fedadam__tau": "small"},
    "strategies.fedadam.learning_rate: must be greater": {"strategies__fedadam__learning_rate": 0},
    "strategies.fedadam: must be a table": {"strategies__fedadam": 1},
    "strategies.fedporx: unknown strategy 'fedporx'": {"strategies__fedporx": {"mu": 5.0}},
    "strategies.fedprox: strategy 'fedprox' has no setting 'nu'": {"strategies__fedprox": {"nu": 5.0}},
    "strategies.fedprox: mu cannot be -5": {"strategies__fedprox": {"mu": -5.0}},
    "strategies.fedavg: strategy 'fedavg' has no setting 'mu'": {"strategies__fedavg": {"learning_rate": 1, "mu": 1}},
    "training.batch: must be at most 9007199254740991": {"training__batch": 2**53},
    "training.learning_rate: must be a finite number": {"training__learning_rate": 10**400},
    "features[2].missing: must hold finite numbers or text": {"features__2__missing": [2**53]},
    "feature: unknown key": {"feature": []},
}


@pytest.mark.parametrize("expected", BAD)
def test_mistakes_are_named_with_their_place(expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_task(document(**BAD[expected]), where="clinics.toml: ")
    message, *hint = caught.value.lines()
    assert message.startswith(f"clinics.toml: {expected}")
    assert len(hint) == 1
    assert "\n" not in message + hint[0]


@pytest.mark.parametrize("key", ["features", "target", "model", "training"])
def test_missing_parts_are_named(key: str) -> None:
    data = document()
    del data[key]
    with pytest.raises(ConfigError, match=f"^{key}: is missing"):
        parse_task(data)


def test_hint_guesses_what_was_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_task(document(features__0__center=1))
    assert caught.value.hint == "Did you mean 'centre'?"
