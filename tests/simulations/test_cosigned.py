"""The sites of a simulation sign its report, each if its own ledger and count agree; one that hangs stops nobody."""

from pathlib import Path
from typing import Any

import pytest

from privacy.audit import envelope
from privacy.audit.verify import verify
from privacy.keys.signing import keyid, parse_trust
from privacy.store.run_folder import PAGE_FILE, REPORT_FILE, TRUST_FILE
from simulations import harness
from simulations.evidence import predicate
from tests.simulations import finished


def signers(folder: Path) -> set[int]:
    """Places in the file of keys, the signer's first, of those that signed."""
    keys = [line for line in (folder / TRUST_FILE).read_text().splitlines() if not line.startswith("#")]
    there = envelope.decode((folder / REPORT_FILE).read_bytes()).keyids
    return {place for place, key in enumerate(keys) if keyid(envelope.decode_base64(key.split()[0])) in there}


@pytest.mark.parametrize("secagg", [True, False], ids=["masked", "in the clear"])
def test_all_sites_sign(secagg: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finished.outcome(folder, "hospitals", rounds=1, secagg=secagg)
    assert signers(folder) == {0, 1, 2, 3, 4}
    trust = parse_trust((folder / TRUST_FILE).read_text())
    assert verify(
        (folder / PAGE_FILE).read_bytes(), trusted=trust.signers, cosigners=trust.cosigners, threshold=5
    ).authentic


def test_one_that_is_away_and_one_of_whom_something_else_is_told_do_not_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switzerland hangs in every round, and the coordinator counts a byte too many of Virginia's."""

    def changed(*arguments: Any, **named: Any) -> dict[str, Any]:
        body = predicate(*arguments, **named)
        body["egress"][3]["bytes"] += 1
        return body

    monkeypatch.setattr(harness, "predicate", changed)
    folder = tmp_path / "run"
    settings = {"fault.switzerland": "silent", "deadline": "3"}
    told = finished.outcome(folder, "hospitals", rounds=1, settings=settings)
    assert signers(folder) == {0, 1, 2}
    trust = parse_trust((folder / TRUST_FILE).read_text())
    verdict = verify((folder / REPORT_FILE).read_bytes(), trusted=trust.signers, cosigners=trust.cosigners)
    assert verdict.authentic
    assert "(not: switzerland, va)" in verdict.claims[0].why
    assert told.status == "finished"
