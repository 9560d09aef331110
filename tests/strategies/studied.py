"""A study of five sites, as its file says it, and jobs of it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from privacy.dp.plan import Unit
from strategies.invitation import Invitation, invite, resolve_job
from strategies.job import Job
from strategies.study import Study, read_study
from strategies.task import SiteId
from tests.privacy.charter import example

HUB = example.key("identity of hub")
SITES = tuple(map(SiteId, ("alba", "brno", "cork", "dole", "este")))
STUDY = """
name = "clinics"
title = "Illness in five clinics"
sites = ["alba", "brno", "cork", "dole", "este"]
features = [
  { name = "age", kind = "continuous", range = [18, 100] },
  { name = "smoker", kind = "categorical", categories = ["no", "yes"] },
]

[target]
name = "ill"

[model]
kind = "mlp"
hidden = 4
init = "torch"

[training]
rounds = 3
learning_rate = 0.5
clip = 1.0
"""
DIVIDED = (
    STUDY
    + """
[[submodels.parts]]
name = "narrow"
sites = ["brno"]
width = 0.5

[agents.cork]
kind = "scikit-learn"
local_steps = 2
"""
)
NAMES = {
    "federation": "north",
    "run": "first",
    "charter": "ab" * 32,
    "application": "cd" * 32,
    "purpose": "training",
    "asset": "hearts",
}
TERMS: Mapping[str, Any] = {
    "seed": 7,
    "privacy": (),
    "unit": Unit.RECORD,
    "epsilon": Decimal("1.5"),
    "delta": Decimal("0.001"),
}


def study(text: str = STUDY) -> Study:
    return read_study(text, where="study.toml")


def job(strategy: str = "fedavg", *, of: Study | None = None, **changes: Any) -> Job:
    named = {**TERMS, "sites": SITES, "parameters": {"local_steps": Decimal(1), "batch": Decimal(0)}, **changes}
    return resolve_job(of or study(), strategy, named.pop("parameters"), **named)


def invitation(of: Job, *, to: Study | None = None) -> Invitation:
    return invite(of, study=(to or study()).digest, **NAMES)
