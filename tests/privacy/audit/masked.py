"""The sample run with its updates masked: fifteen rounds of the real machines, their transcript, and its report.

Switzerland is lost in round 4 after its shares went out; at the first attempt of round 7 two sites are silent.
"""

import copy
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from privacy.audit import masked_rounds, transcript
from privacy.audit.transcript import AttemptRecord
from privacy.secagg import client, coordinator
from privacy.secagg.admission import ClientConfig, LocalInput
from privacy.secagg.context import (
    RUN_BYTES,
    Block,
    Durations,
    Region,
    Roster,
    RoundContext,
    model_root,
    region_digest,
    thresholds,
)
from privacy.secagg.suite import RealSuite
from tests.privacy.audit import sample
from tests.privacy.secagg.parties import JOB, PLAN, Parties, exchange, identity, lose, random_input, seeded

RUN = hashlib.sha256(sample.RUN_ID.encode()).digest()[:RUN_BYTES]
SITES = tuple(sorted(sample.N_TRAIN))
ROSTER = Roster(1, {site: identity(site).public_key for site in (*SITES, "spare")})


def attempt(
    number: int,
    attempt: int = 1,
    *,
    lost: Mapping[str, str] | None = None,
    job: bytes = JOB,
    run: bytes = RUN,
    cohort: tuple[str, ...] = SITES,
    regions: tuple[Region, ...] = (),
    **told: Any,
) -> AttemptRecord:
    """One attempt by the real machines, ``told`` in its context; sites in ``lost`` die with the message named there."""
    regions = regions or (Region(cohort, (Block(14, 1000),)),)
    values = hashlib.sha256(b"the model of round %d" % number).digest()
    digests = tuple(region_digest(k, one.length, one.holders, values) for k, one in enumerate(regions))
    context = RoundContext(
        federation="town", run=run, round=number, attempt=attempt, roster=ROSTER.digest, cohort=cohort,
        thresholds=thresholds(len(cohort)), bits=64, fraction_bits=20, regions=regions,
        model_root=model_root(PLAN, digests), job=job, purpose="training", asset="records",
        durations=Durations(60, 60, 60, 60), fixed_set=False,
    )  # fmt: skip
    context = replace(context, **told)
    rng = np.random.default_rng(number)
    inputs = {
        site: LocalInput(random_input(context, site, rng).vectors, PLAN, dict.fromkeys(context.held(site), values))
        for site in cohort
    }
    configs = {
        site: ClientConfig(site, identity(site), ROSTER, job, {}, seeded(number, attempt, site), RealSuite())
        for site in cohort
    }
    server = coordinator.CoordinatorConfig(context, ROSTER, digests, RealSuite())
    states = {site: client.idle(inputs[site]) for site in cohort}
    log = exchange(Parties(context, ROSTER, inputs, configs, states, server), lose(lost or {}))
    end = log.finished or log.aborted()
    if end is None:
        raise RuntimeError("the attempt did not end")
    return AttemptRecord.of(number, attempt, end)


@cache
def records() -> tuple[AttemptRecord, ...]:
    """Every attempt of the run, in order."""
    silent = attempt(7, 1, lost={"hungary": "ADV", "va": "ADV"})
    rounds = [attempt(n, lost={"switzerland": "MSK"} if n == 4 else None) for n in range(1, 16) if n != 7]
    return (*rounds[:6], silent, attempt(7, 2), *rounds[6:])


def written(entries: Iterable[AttemptRecord], roster: Roster = ROSTER) -> bytes:
    """A transcript with these attempts."""
    return transcript.header(roster) + b"".join(transcript.line(entry) for entry in entries)


@cache
def signed_rounds() -> bytes:
    """The transcript of the run."""
    return written(records())


@cache
def _claim() -> dict[str, Any]:
    return masked_rounds.claim_of(signed_rounds())


def predicate(*, private: bool = False) -> dict[str, Any]:
    """The sample report with secure aggregation on; the claim about its rounds comes last but one."""
    body = sample.predicate() if private else sample.plain_predicate()
    body["protections"]["secagg"] = True
    body["claims"] += [copy.deepcopy(_claim()), {"id": "secagg.egress", "kind": "asserted", "unmasked_arrays": 0}]
    for entry in body["egress"]:
        entry["unmasked_arrays"] = 0
    return sample.told(body)
