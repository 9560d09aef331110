"""How long a stranger waits: the largest report that we expect, checked on one core."""

import base64
import json
import resource
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from privacy.audit import consistency
from privacy.audit.ledger_chain import LEDGERS_FILE
from privacy.audit.statement import Statement
from privacy.dp.events import Arithmetic, GaussianEvent, Relation, Sampling, SamplingType
from privacy.dp.filters import FilterKind
from tests.privacy.audit import ledgers, measured, promises, sample

N_SITES, N_ROUNDS, N_BEFORE = 10, 100, 1000
SECONDS = 30


def large() -> dict[str, Any]:
    """Ten sites with Poisson rates of their own, a hundred rounds, and budgets that a thousand attempts drew on."""
    sites = [f"hospital-{place:02d}" for place in range(N_SITES)]
    body = sample.predicate()
    holders = []
    for place, site in enumerate(sites):
        rate = Sampling(SamplingType.POISSON, Decimal("0.005") * (place + 2))
        own = GaussianEvent(Decimal(4), rate, N_ROUNDS, arithmetic=Arithmetic.INTEGER_EXACT)
        ever = promises.lifetime(f"hospitals/{site}", [own.times(N_ROUNDS + N_BEFORE)], FilterKind.RENYI)
        one = promises.holder(site, own, "PLD", n_train=100 + place, lifetime=ever)
        whole = own.times(N_ROUNDS + 2)
        one["planned_epsilon"] = promises.price([whole], Relation.REPLACE_SPECIAL, "PLD")
        holders.append(one)
    claim = promises.claim("local", "record", "PLD", holders, target_epsilon="1000", budget_executions=N_ROUNDS + 2)
    body["claims"][1:] = [claim, measured.conformance_claim([claim])]
    answered = {"answered": sites, "missing": [], "attempts": 1}
    body["rounds"] = [{**body["rounds"][0], **answered, "round": number} for number in range(1, N_ROUNDS + 1)]
    body["run"].update(rounds=N_ROUNDS, completed=N_ROUNDS)
    body["egress"] = [{"site": site, "messages": 900, "bytes": 10**6, "unmasked_arrays": 200} for site in sites]
    body["utility"].update(sites=[], left_out=[], mean=dict.fromkeys(body["utility"]["mean"]))
    return body


def test_many_sites_in_many_rounds_are_compared_in_proportion() -> None:
    sites, n_rounds = [f"s{place}" for place in range(3000)], 300
    body = sample.plain_predicate()
    answered: dict[str, Any] = {**body["rounds"][0], "answered": sites, "missing": [], "attempts": 1}
    body["rounds"] = [{**answered, "round": number} for number in range(1, n_rounds + 1)]
    body["run"].update(rounds=n_rounds, completed=n_rounds)
    body["egress"] = [{"site": site, "messages": 900, "bytes": 10**6, "unmasked_arrays": 900} for site in sites]
    body["utility"].update(sites=[], left_out=[], mean=dict.fromkeys(body["utility"]["mean"]))
    began = time.process_time()
    found = consistency.of_report(Statement("model.safetensors", sample.MODEL_SHA256, body))
    assert time.process_time() - began < 10
    assert not [problem for problem in found if "took part" in problem or "nothing is said about" in problem]


@pytest.mark.soak
def test_the_largest_report_that_we_expect_takes_seconds(tmp_path: Path) -> None:
    """In a process of its own, so that nothing was priced before."""
    body, data = ledgers.with_ledgers(large())
    (tmp_path / "transcript").mkdir()
    (tmp_path / LEDGERS_FILE).write_bytes(data)
    (tmp_path / "model.safetensors").write_bytes(b"a model")
    (tmp_path / "report.dsse.json").write_bytes(sample.signed(body))
    (tmp_path / "trust.txt").write_bytes(base64.b64encode(sample.KEY.public_key) + b"\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = "from privacy.command import main; main()"
    command = [sys.executable, "-c", program, "verify", "report.dsse.json", "--trust", "trust.txt", "--json"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert json.loads(found.stdout)["ok"] is True, found.stdout + found.stderr
    assert 0 < took < SECONDS, f"{took:.1f} s of processor time for {len(data) / 1e6:.1f} MB of ledgers"
