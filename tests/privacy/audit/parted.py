"""A masked run of a divided model: three hospitals hold all of it, Switzerland a part, each keeps two parameters back.

Of 14 parameters, all four share 8 and three share 4: the fewest whose sum is opened, so there is no slack. VA is silent
in round 2; in round 3 it is lost after its shares went out, and the round is tried again without its region; round 4
has too few sites.
"""

import copy
import json
from functools import cache
from typing import Any

from privacy.audit import masked_rounds
from privacy.audit.transcript import AttemptRecord
from privacy.dp.events import Relation
from privacy.secagg.context import Block, Region
from tests.privacy.audit import ledgers, masked, promises, sample

WIDE = ("cleveland", "hungary", "va")
COMMON = Region(masked.SITES, (Block(8, 1000),))
OUTER = Region(WIDE, (Block(4, 1000),))


@cache
def records() -> tuple[AttemptRecord, ...]:
    """Every attempt of the run, in order."""
    both = (COMMON, OUTER)
    return (
        masked.attempt(1, regions=both),
        masked.attempt(2, regions=both, lost={"va": "ADV"}),
        masked.attempt(3, regions=both, lost={"va": "MSK"}),
        masked.attempt(3, 2, regions=(COMMON,)),
        masked.attempt(4, regions=both, lost={"va": "ADV", "hungary": "ADV"}),
    )


@cache
def signed_rounds() -> bytes:
    """The transcript of the run."""
    return masked.written(records())


@cache
def _claim() -> dict[str, Any]:
    return masked_rounds.claim_of(signed_rounds())


def submodels() -> dict[str, Any]:
    """Parts, regions and baselines; everyone on the small part does better here, the wide ones alone do not."""
    everybody, wide = list(masked.SITES), list(WIDE)
    found = {
        "floor": 3,
        "slack": 0,
        "parts": [
            _part("whole", wide, 14, 96, "0.7941"),
            _part("narrow", ["switzerland"], 10, 64, "0.8750"),
        ],
        "regions": [
            {"holders": everybody, "parameters": 8, "still": 1},
            {"holders": wide, "parameters": 4, "still": 3},
        ],
        "baselines": {
            "smallest": {"part": "narrow", "sites": everybody, "score": "0.8386", "scored_at": everybody},
            "strong": {"part": "whole", "sites": wide, "score": "0.7899", "scored_at": wide},
        },
    }
    copied: dict[str, Any] = json.loads(json.dumps(found))  # no list is in two places
    return copied


def _part(name: str, sites: list[str], parameters: int, upload: int, score: str) -> dict[str, Any]:
    return {
        "name": name,
        "sites": sites,
        "parameters": parameters,
        "upload_bytes": upload,
        "score": [score],
        "scored_at": sites,
    }


def _round(number: int, missing: tuple[str, ...], still: list[int], attempts: int = 1) -> dict[str, Any]:
    skipped = len(still) > 1
    return {
        "round": number,
        "attempts": attempts,
        "answered": [] if skipped else [site for site in masked.SITES if site not in missing],
        "missing": [{"site": site, "reason": "no answer within 10 s"} for site in missing],
        "skipped": skipped,
        "still": still,
        "loss": "0.5000",
    }


def predicate() -> dict[str, Any]:
    """Its report, without differential privacy."""
    body = masked.predicate()
    body["claims"][-2] = copy.deepcopy(_claim())
    body["run"].update(rounds=4, completed=3, skipped=1)
    body["rounds"] = [
        _round(1, (), []),
        _round(2, ("va",), [1]),
        _round(3, (), [1], attempts=2),
        _round(4, masked.SITES, [0, 1]),
    ]
    body["submodels"] = submodels()
    return sample.told(body)


def shared_noise() -> dict[str, Any]:
    """The same with shares of noise under the masks, of which two are counted on."""
    body = predicate()
    claim = copy.deepcopy(promises.of(promises.predicate("distributed"), "distributed"))
    for entry in claim["sites"]:
        paid = 3 if entry["site"] == "va" else 4  # it was silent in round 2
        entry.update(promises.holder(entry["site"], promises.SHARED.event(paid), "RDP"))
        del entry["lifetime"]
    for row in claim["hypothetical"]:
        event = promises.SHARED.hypothetical(row["shares"], 4)
        row["epsilon"] = promises.price([event], Relation.REPLACE_SPECIAL, "RDP")
    body["claims"].insert(1, claim)
    body["protections"]["distributed_dp"] = True
    for scores in (*body["utility"]["sites"], body["utility"]["mean"]):
        scores["together_without_privacy"] = scores["together"]
    body["claims"][-2:-2] = ledgers.evidence(body)
    return sample.told(body)


def signed(body: dict[str, Any] | None = None) -> bytes:
    """An honest report."""
    return sample.signed(predicate() if body is None else body)
