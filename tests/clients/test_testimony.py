"""What a site states is what its own log, ledger and list of payloads hold about one run, and of no other run."""

import base64
import json
from pathlib import Path

import pytest

from clients.run_store import RunStore
from clients.testimony import state
from privacy.audit.checkpoint import NoteKey, open_checkpoint
from privacy.audit.egress import Sent
from privacy.audit.site_statement import SiteStatement, opened
from privacy.audit.testimony import keys_of
from privacy.errors import FederationError
from strategies.messages import CLOSE, MASKED, Closing
from tests.clients.invited import RUN, Parties
from tests.clients.node import body_of, refusal
from tests.clients.test_real_site import SITE, begun
from tests.clients.test_real_site import pay as paid
from tests.federation import federate, study_of


def statement(parties: Parties, run: str = RUN) -> SiteStatement:
    agent, folder = parties.agent(SITE), parties.federation.folders[SITE]
    job = parties.job("record")
    return state(
        RunStore(folder.path / "runs", run),
        parties.invitation(job, run=run),
        job.digest,
        site=SITE,
        charter=parties.federation.charter,
        log=agent.log,
        ledger=agent.ledger,
        witnessed=parties.server_log(SITE).note,
    )


def test_decisions_are_counted_by_run_and_refusals_by_rule(parties: Parties) -> None:
    job = begun(parties)
    for _ in range(2):
        refusal(parties.hello(SITE, parties.signed(job, charter="ab" * 32), number=2))
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    begun_elsewhere = parties.signed(parties.job("record"), run="second")
    body_of(parties.hello(SITE, begun_elsewhere, number=3))
    refusal(parties.hello(SITE, parties.signed(job, run="second", purpose="marketing"), number=4))
    told = statement(parties)
    assert (told.allowed, told.run, told.site, told.job) == (2, RUN, SITE, job.digest)
    # What was refused before the gate knew which run it was said to be of, is of no run.
    assert told.refusals == ()
    assert statement(parties, "second").allowed == 1


def test_refusals_of_the_run_itself_are_listed(parties: Parties) -> None:
    job = begun(parties)
    parties.clock.pass_by(days=61)
    for _ in range(3):
        refusal(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    (refused,) = statement(parties).refusals
    assert (refused.by, refused.strategy, refused.times) == ("charter: not after", "fedavg", 3)


def test_payloads_and_debits_are_those_of_the_run(parties: Parties) -> None:
    job = begun(parties)
    body_of(parties.hello(SITE, parties.signed(parties.job("record"), run="second"), number=2))
    agent = parties.agent(SITE)
    agent.sent(1, MASKED, "1", b"of the first")
    agent.sent(2, MASKED, "1", b"of the second")
    agent.sent(99, MASKED, "1", b"of none")
    paid(parties, job, RUN)
    paid(parties, job, "second")
    told = statement(parties)
    assert told.egress == (Sent.of(MASKED, "1", b"of the first"),)
    assert [(line["claim"], line["round"], line["attempt"]) for line in told.debits] == [("record", 1, 1)]
    assert [set(line) for line in told.debits] == [{"claim", "round", "attempt", "event"}]


def test_what_a_site_answers_to_the_closing_is_signed_by_it_and_names_both_logs(parties: Parties) -> None:
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    signed = body_of(parties.ask(SITE, CLOSE, Closing(job.digest, 1, job.initial).encode()))
    charter = parties.federation.charter
    told = opened(signed, keys_of(charter))
    assert (told.charter, told.application) == (charter.digest, charter.application)
    own = parties.federation.folders[SITE]
    assert open_checkpoint(told.log, NoteKey(own.origin, own.identity.public_key)).size > 0
    assert told.witnessed == parties.server_log(SITE).note
    with pytest.raises(FederationError):
        opened(signed.replace(b"a", b"b", 1), keys_of(charter))
    others = {site: key for site, key in keys_of(charter).items() if site != SITE}
    with pytest.raises(FederationError):
        opened(signed, {**others, SITE: others["brno"]})


def test_scores_stay_at_home(parties: Parties) -> None:
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    signed = body_of(parties.ask(SITE, CLOSE, Closing(job.digest, 1, job.initial).encode()))
    kept = (parties.federation.folders[SITE].path / "runs" / RUN / "score.json").read_bytes()
    assert b'"score"' in kept
    assert b"score" not in opened_payload(signed)


def test_a_run_ends_where_a_site_has_no_score(tmp_path: Path) -> None:
    """All its rows are ill: there is no area under the curve, which the coordinator must neither learn nor notice."""
    study = study_of().replace("title =", 'metric = "auc"\ntitle =')
    parties = Parties(federate(tmp_path / "north", study=study))
    rows = parties.federation.data(SITE).read_text().splitlines()
    parties.federation.data(SITE).write_text("\n".join([rows[0], *(f"{row[:-1]}1" for row in rows[1:])]) + "\n")
    job = begun(parties)
    body_of(parties.ask(SITE, MASKED, parties.start(SITE, job)))
    signed = body_of(parties.ask(SITE, CLOSE, Closing(job.digest, 1, job.initial).encode()))
    kept = (parties.federation.folders[SITE].path / "runs" / RUN / "score.json").read_bytes()
    assert json.loads(kept) == {"metric": "auc", "score": None, "interval": None, "n_test": 21}
    assert b"score" not in opened_payload(signed)


def opened_payload(signed: bytes) -> bytes:
    return base64.b64decode(json.loads(signed)["payload"])
