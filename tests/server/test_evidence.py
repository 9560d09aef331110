"""Reports about real sites: what an honest coordinator writes holds, and each claim finds a lie that no other does."""

import base64
import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients import cosigning
from privacy.audit import approval, consistency, division, report, schemas, statement
from privacy.audit.egress import Sent
from privacy.audit.envelope import decode as decode_envelope
from privacy.audit.figures import figure
from privacy.audit.html import page
from privacy.audit.site_statement import Refusal
from privacy.audit.verify import Verdict, verify
from privacy.charter.document import from_body
from privacy.conformance.results import BY_CHANCE
from privacy.errors import ConfigError
from privacy.secagg.context import Block, Region
from privacy.store.log import Log, Record
from privacy.store.run_folder import RunFolder
from server import evidence
from server.evidence import RealRun, predicate, write_report
from strategies.messages import CLOSE
from tests.privacy.audit import masked, sample
from tests.privacy.charter import example
from tests.privacy.secagg.parties import identity
from tests.server import real
from tests.server.real import HUB, SITES, STRANGER, Scene

FILES = ("model.safetensors", "transcript/charter.jsonl", "transcript/statements.jsonl", "report.dsse.json")
REAL = ("charter.adopted", "charter.approved", "sites.statements", "sites.egress", "log.witnessed")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.of(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def told(scene: Scene) -> tuple[RealRun, dict[str, Any], bytes]:
    """An honest run, its predicate and the statements beside it."""
    run = scene.run()
    return run, *predicate(run, real.SIGNER)


def failing(verdict: Verdict) -> dict[str, str]:
    return {claim.id: claim.why for claim in verdict.claims if claim.verdict == "fails"}


def written(run: RealRun, path: Path) -> tuple[dict[str, Any], Verdict, str]:
    """Writes a report; returns predicate, verdict over the files that were written, and the page as text."""
    folder = RunFolder.create(path / "run")
    write_report(folder, run, HUB)
    model, charters, statements, signed = (folder.read(name) for name in FILES)
    assert (model, charters) == (run.model, run.charters)
    text = folder.read("report.html").decode()
    on_page = real.checked(text.encode(), run, statements)
    assert on_page.claims[-1].id == "report.page"
    assert on_page.claims[-1].verdict == "holds"
    body = statement.decode(decode_envelope(signed).payload).predicate
    schemas.check("verify-v1", on_page.to_json())
    return body, real.checked(signed, run, statements), text


# Honest reports


def test_everything_holds_and_the_page_tells_it(scene: Scene, tmp_path: Path) -> None:
    body, verdict, text = written(scene.run(), tmp_path)
    assert (verdict.exit_code, failing(verdict)) == (0, {})
    assert [claim.id for claim in verdict.claims[-5:]] == list(REAL)
    assert body["utility"] is None
    assert all(entry["loss"] is None for entry in body["rounds"])
    words = " ".join(text.split())
    for phrase in (
        "Scores stay at the sites.",
        "Requests that a site refused",
        '<th scope="row">hungary</th> <td>strategy</td> <td>fedsgd</td> <td class="num">1</td>',
        "Payloads by kind",
        "version 1 of town, digest",
        "sites in their own networks, over mutual TLS",
        "town/server/hub, 4 entries",
    ):
        assert phrase in words, phrase
    for site in SITES:
        assert f'<th scope="row">{site}</th> <td>shares, masked update, list of survivors</td>' in words
    assert "score" not in words.replace("Scores stay at the sites. Each site scores", "").replace(
        "no score and no loss left a site", ""
    ).replace("its scores above all", "").replace("scores and losses included", "")


def test_debits_that_sites_sign_are_the_events_of_their_epsilon(tmp_path: Path) -> None:
    scene = Scene.of(tmp_path, "record")
    body, verdict, _ = written(scene.run(), tmp_path)
    assert (verdict.exit_code, failing(verdict)) == (0, {})
    assert [entry["site"] for entry in body["claims"][1]["sites"]] == list(SITES)
    terms = claim(body, "charter.approved")["proposal"]["privacy"][0]
    for name, other in (("epsilon", "0.5"), ("delta", "0.002"), ("clip", "0.5")):
        kept, terms[name] = terms[name], other
        report_of = statement.Statement("", "", body)
        assert len(list(approval.contradictions(report_of))) == 1
        terms[name] = kept
    claim(body, "charter.approved")["job"] = "0" * 64
    assert "another job" in next(approval.contradictions(statement.Statement("", "", body)))
    assert "other sites" in told_apart(body, lambda b: claim(b, "charter.approved")["proposal"]["cohort"].pop())
    assert "or its absence" in told_apart(body, lambda b: b["claims"].remove(claim(b, "secagg.rounds")))
    less = scene.statement("va")
    less = replace(less, debits=less.debits[:2])
    run = scene.run()
    run = replace(run, statements={**run.statements, SITES[3]: less.sign(identity("va"))})
    body, _ = predicate(run, real.SIGNER)
    unattested = next(claim for claim in body["claims"] if claim["id"] == "sites.statements")["unattested"]
    assert [entry["site"] for entry in unattested] == ["va"]
    assert "other debits than privacy.epsilon" in unattested[0]["reason"]


def test_parts_of_a_divided_model_are_told_of_without_scores(tmp_path: Path) -> None:
    body, verdict, text = written(Scene.of(tmp_path, text=real.DIVIDED).run(), tmp_path)
    assert (verdict.exit_code, failing(verdict)) == (0, {})
    assert [part["score"] for part in body["submodels"]["parts"]] == [[], []]
    assert "Scores of the parts stay at the sites that hold them." in text
    body["utility"] = sample.plain_predicate()["utility"]
    found = statement.decode(decode_envelope(real.forged(body)).payload)
    assert any("exactly where the run has scores" in problem for problem in division.of_division(found))


def test_payloads_that_never_arrived_are_listed_and_nothing_else_is_excused(scene: Scene, tmp_path: Path) -> None:
    run = scene.run()
    run = replace(run, manifest={**run.manifest, SITES[0]: real.payloads("cleveland")[:-1]})
    body, verdict, text = written(run, tmp_path)
    assert verdict.exit_code == 0
    lost = next(claim for claim in body["claims"] if claim["id"] == "sites.egress")["sites"][0]["lost"]
    assert lost == [real.payloads("cleveland")[-1].to_json()]
    assert "and 1 payload that never arrived" in next(c.why for c in verdict.claims if c.id == "sites.egress")
    assert "Sent, never arrived" in text


def test_a_log_that_grows_while_the_report_is_made_does_not_matter(tmp_path: Path) -> None:
    scene = Scene.of(tmp_path)
    run = scene.run()
    scene.log.append([Record("admission", {"site": "va"})], HUB)
    body, _ = predicate(run, real.SIGNER)
    assert not claim(body, "sites.statements")["unattested"]
    with pytest.raises(ConfigError, match="never had 5"):
        run.growth(5)
    assert run.growth(4) != scene.log.growth(4)


def test_the_statement_itself_is_not_counted(scene: Scene) -> None:
    run = scene.run()
    more = {site: (*sent, Sent.of(CLOSE, "4", run.statements[site])) for site, sent in run.manifest.items()}
    assert predicate(replace(run, manifest=more), real.SIGNER) == predicate(run, real.SIGNER)


def test_an_epsilon_of_real_sites_needs_a_test_of_their_noise_and_no_ledger_of_theirs(tmp_path: Path) -> None:
    body, verdict, _ = written(Scene.of(tmp_path, "record").run(), tmp_path)
    assert "ledger.chain" not in {one.id for one in verdict.claims}
    body["claims"].remove(claim(body, "conformance.release"))
    assert [one for one in consistency.of_report(statement.Statement("", "", body)) if "conformance.release" in one]


def told_apart(body: dict[str, Any], edit: Callable[[dict[str, Any]], object]) -> str:
    body = copy.deepcopy(body)
    edit(body)
    return "; ".join(approval.contradictions(statement.Statement("", "", body)))


# Sites whose word does not hold: the run is reported, and says so


def other_log(path: Path) -> bytes:
    """A checkpoint of another history of the server's log, which the server signed as well."""
    log = Log.create(path / "other.db", "town/server/hub", HUB)
    return log.append([Record("run", {"id": "another"})], HUB)


UNATTESTED: dict[str, tuple[Callable[[Scene, Path], bytes | None], str]] = {
    "no answer": (lambda _s, _p: None, "did not answer"),
    "no statement": (lambda _s, _p: b"yes\n", "canonical"),
    "a stranger's key": (lambda s, _: s.statement("va").sign(STRANGER), "which is not its own"),
    "another site's": (lambda s, _: s.statement("hungary").sign(identity("hungary")), "the statement of hungary"),
    "another application": (lambda s, _: s.statement("va", application="0" * 64).sign(identity("va")), "application"),
    "another study": (lambda s, _: s.statement("va", study="0" * 64).sign(identity("va")), "another study"),
    "another charter": (lambda s, _: s.statement("va", charter="0" * 64).sign(identity("va")), "another charter"),
    "another job": (lambda s, _: s.statement("va", job="0" * 64).sign(identity("va")), "another job"),
    "another conformance": (
        lambda s, _: s.statement("va", conformance="1" * 64).sign(identity("va")),
        "said something else of its release paths",
    ),
    "another run": (lambda s, _: s.statement("va", run="town-0000").sign(identity("va")), "another run"),
    "a payload kept quiet": (
        lambda s, _: s.statement("va", egress=real.payloads("va")[1:]).sign(identity("va")),
        "1 payloads arrived that it does not state",
    ),
    "debits for nothing": (
        lambda s, _: s.statement(
            "va", debits=({"claim": "record", "round": 1, "attempt": 1, "event": sample_event()},)
        ).sign(identity("va")),
        "paid for record",
    ),
    "another site's log": (
        lambda s, _: s.statement("va", log=s.statement("hungary").log).sign(identity("va")),
        "not signed by",
    ),
    "another history": (lambda s, p: s.statement("va", witnessed=other_log(p)).sign(identity("va")), "fork"),
}


def sample_event() -> Any:
    return sample.epsilon_claim()["sites"][0]["events"][0]


@pytest.mark.parametrize(("made", "reason"), UNATTESTED.values(), ids=UNATTESTED.keys())
def test_a_site_whose_statement_does_not_hold_is_named(
    scene: Scene, tmp_path: Path, made: Callable[[Scene, Path], bytes | None], reason: str
) -> None:
    run, answer = scene.run(), made(scene, tmp_path)
    others = {site: data for site, data in run.statements.items() if site != "va"}
    run = replace(run, statements=others if answer is None else {**others, SITES[3]: answer})
    body, lines = predicate(run, real.SIGNER)
    verdict = real.checked(report.sign(body, real.MODEL_SHA256, HUB), run, lines)
    assert (verdict.exit_code, failing(verdict)) == (3, {})
    found = next(claim for claim in verdict.claims if claim.id == "sites.statements")
    assert found.verdict == "unchecked"
    assert "va: " in found.why
    assert reason in found.why
    assert len(claim(body, "sites.statements")["sites"]) == 3


def test_what_a_site_found_when_it_tested_itself_cannot_be_made_up_for_it(tmp_path: Path) -> None:
    """Not even by numbers that fit each other: the site signed the digest of its own, and does not sign these."""
    scene = Scene.of(tmp_path, "record")
    run = scene.run()
    body, statements = predicate(run, real.SIGNER)
    assert not claim(body, "sites.statements")["unattested"]
    entry = next(one for one in claim(body, "conformance.release")["sites"] if one["site"] == "va")
    test = next(one for one in entry["tests"] if one["name"] == "noise scale")
    test.update(statistic="1", p_value=figure(BY_CHANCE["noise scale"](test["n"], 1.0)))
    signed, why = real.forged(body), "va said something else of its release paths at the roll call than the report says"
    verdict = real.checked(signed, run, statements)
    assert failing(verdict) == {"sites.statements": why}
    own = scene.statement("va")
    doubts = cosigning.stated_doubts(statement.Statement("model.safetensors", "0" * 64, body), own, scene.charter)
    assert list(doubts) == [why]


def test_the_page_names_a_site_whose_statement_does_not_hold(scene: Scene, tmp_path: Path) -> None:
    run = scene.run()
    _, verdict, text = written(
        replace(run, statements={site: data for site, data in run.statements.items() if site != "va"}), tmp_path
    )
    assert verdict.exit_code == 3
    assert "<b>No statement that holds</b> of va: it did not answer." in text


# Lies that the server signs: the claim that finds each, and no other


def claim(body: dict[str, Any], name: str) -> Any:
    return next(one for one in body["claims"] if one["id"] == name)


def drop_refusals(body: dict[str, Any]) -> None:
    claim(body, "sites.statements")["sites"][1].update(refused=0, refusals=[])


def invent_lost(body: dict[str, Any]) -> None:
    claim(body, "sites.egress")["sites"][0]["lost"].append(Sent.of("train.masked", "9", b"x").to_json())


EDITS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "edited manifest": ("sites.egress", lambda b: claim(b, "sites.egress")["sites"][0].update(sha256="0" * 64)),
    "a loss that was none": ("sites.egress", invent_lost),
    "a refusal dropped": ("sites.statements", drop_refusals),
    "more requests allowed": ("sites.statements", lambda b: claim(b, "sites.statements")["sites"][0].update(allowed=5)),
    "another federation": ("charter.adopted", lambda b: claim(b, "charter.adopted").update(federation="city")),
    "another version": ("charter.adopted", lambda b: claim(b, "charter.adopted").update(version=2)),
    "another log": ("log.witnessed", lambda b: claim(b, "log.witnessed").update(origin="town/server/hut")),
    "no proof of growth": ("log.witnessed", lambda b: claim(b, "log.witnessed").update(growths=[])),
    "growth of another size": (
        "log.witnessed",
        lambda b: claim(b, "log.witnessed")["growths"][0].update(
            proof=claim(b, "log.witnessed")["growths"][1]["proof"]
        ),
    ),
    "a parameter out of range": (
        "charter.approved",
        lambda b: claim(b, "charter.approved")["proposal"]["parameters"].update(learning_rate="101"),
    ),
    "a parameter that is not listed": (
        "charter.approved",
        lambda b: claim(b, "charter.approved")["proposal"]["parameters"].update(momentum="0"),
    ),
    "another purpose": (
        "charter.approved",
        lambda b: claim(b, "charter.approved")["proposal"].update(purpose="marketing"),
    ),
    "fewer rounds asked for": (
        "charter.approved",
        lambda b: claim(b, "charter.approved")["proposal"]["parameters"].update(rounds="2"),
    ),
    "another strategy than ran": ("charter.approved", lambda b: b["run"].update(strategy="fedprox")),
    "more sites asked about": (
        "charter.approved",
        lambda b: claim(b, "charter.approved")["proposal"]["cohort"].insert(2, "spare"),
    ),
    "privacy that was not on": (
        "charter.approved",
        lambda b: claim(b, "charter.approved")["proposal"]["privacy"].append(
            {"setting": "record", "epsilon": "1", "delta": "0.001", "clip": "1", "noise": "1"}
        ),
    ),
    "without masks": ("charter.approved", lambda b: claim(b, "charter.approved")["proposal"].update(thresholds=None)),
    "payloads that do not add up": (
        "sites.egress",
        lambda b: b["egress"][0].update(bytes=b["egress"][0]["bytes"] + 1),
    ),
    "outside the window": (
        "charter.approved",
        lambda b: b["run"].update(started="2027-08-01T00:00:00Z", finished="2027-08-01T01:00:00Z"),
    ),
    "scores that cannot be": ("report.consistency", lambda b: b.update(utility=sample.plain_predicate()["utility"])),
    "a loss from nowhere": ("report.consistency", lambda b: b["rounds"][0].update(loss="0.5")),
    "without encryption": ("report.consistency", lambda b: b["protections"].update(tls=False)),
    "signed as a run's key": ("report.consistency", lambda b: b["signer"].update(role="run")),
    "a site that is not accounted for": (
        "sites.statements",
        lambda b: (
            claim(b, "sites.statements")["sites"].pop(),
            claim(b, "sites.statements")["unattested"].append({"site": "va", "reason": "silent"}),
        ),
    ),
}


@pytest.mark.parametrize(("found_by", "edit"), EDITS.values(), ids=EDITS.keys())
def test_one_claim_finds_what_the_server_changed(
    told: tuple[RealRun, dict[str, Any], bytes], found_by: str, edit: Callable[[dict[str, Any]], object]
) -> None:
    run, body, statements = told
    body = copy.deepcopy(body)
    edit(body)
    found = failing(real.checked(real.forged(body), run, statements, transcript=None))
    assert set(found) == {found_by}


@pytest.mark.parametrize("name", REAL)
def test_no_claim_can_be_left_out(told: tuple[RealRun, dict[str, Any], bytes], name: str) -> None:
    run, body, statements = told
    body = {**body, "claims": [one for one in body["claims"] if one["id"] != name]}
    found = failing(real.checked(real.forged(copy.deepcopy(body)), run, statements, transcript=None))
    assert f"{name} is claimed exactly by runs of real sites" in found["report.consistency"]


def consistent(tmp_path: Path, **charter: Any) -> tuple[RealRun, set[str]]:
    """A run in which everybody, also every site, goes along with another charter."""
    (tmp_path / "hub").mkdir()
    run = Scene.of(tmp_path / "hub", charter=charter).run()
    body, statements = predicate(run, real.SIGNER)
    assert not claim(body, "sites.statements")["unattested"]
    return run, set(failing(real.checked(real.forged(body), run, statements)))


@pytest.mark.parametrize(
    "charter",
    [
        {"strategies": {"fedprox": {"mu": {"low": "0", "high": "1"}}}},
        {"application": "cd" * 32},
        {"studies": {"clinics": "0" * 64}},
        {"floors": {"cohort": 5, "survivors": 3, "threshold": 3, "cover": 3}},
        {"floors": {"cohort": 4, "survivors": 4, "threshold": 3, "cover": 3}},
        {"unsafe_without_dp": False},
    ],
    ids=["strategy", "application", "study", "cohort", "survivors", "privacy"],
)
def test_what_the_charter_does_not_allow_is_found_though_everybody_went_along(
    tmp_path: Path, charter: dict[str, Any]
) -> None:
    run, found = consistent(tmp_path, **charter)
    assert found == {"charter.approved"}
    with pytest.raises(ConfigError, match=r"would not hold: charter\.approved"):
        write_report(RunFolder.create(tmp_path / "run"), run, HUB)
    assert not (tmp_path / "run" / "report.dsse.json").exists()


def test_a_sum_over_fewer_sites_than_the_charter_asks_for_is_found(scene: Scene) -> None:
    """The server asked about four sites, and left one out of a round's cohort."""
    run, three = scene.run(), SITES[:3]
    small = real.masked_round(scene.job, 3, cohort=three, regions=(Region(three, (Block(14, 1000),)),))
    rounds = [real.masked_round(scene.job, n) for n in (1, 2)]
    last = replace(run.rounds[0], round=3, answered=three)
    listed = (run.rounds[0], replace(run.rounds[0], round=2), last)
    run = replace(run, transcript=masked.written([*rounds, small]), rounds=listed)
    body, statements = predicate(run, real.SIGNER)
    found = failing(real.checked(real.forged(body), run, statements))
    assert set(found) == {"charter.approved"}
    assert "3 sites are fewer than 4" in found["charter.approved"]


def test_what_crossed_is_counted_over_every_attempt_that_was_begun(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def releases(_job: object, attempts: int) -> dict[str, Any]:
        counted.append(attempts)
        return {}

    monkeypatch.setattr(evidence, "releases", releases)
    predicate(scene.run(attempts=7), real.SIGNER)
    assert counted == [7]


def with_charters(body: dict[str, Any], data: bytes) -> dict[str, Any]:
    body = copy.deepcopy(body)
    claim(body, "charter.adopted")["charters_sha256"] = hashlib.sha256(data).hexdigest()
    return body


def test_a_charter_with_too_few_signatures_is_not_adopted(told: tuple[RealRun, dict[str, Any], bytes]) -> None:
    run, body, statements = told
    few = real.chain(from_body(real.body()), signatures=2)
    verdict = real.checked(real.forged(with_charters(body, few)), run, statements, charters=few)
    assert set(failing(verdict)) == {"charter.adopted"}
    assert "1 more of its own officers must sign" in failing(verdict)["charter.adopted"]
    assert {one.verdict for one in verdict.claims if one.id in REAL[1:]} == {"unchecked"}


def test_another_signer_than_the_charters_server_is_found(told: tuple[RealRun, dict[str, Any], bytes]) -> None:
    run, body, statements = told
    body = copy.deepcopy(body)
    signed = sample.forged(body, STRANGER, real.MODEL_SHA256)
    verdict = real.checked(signed, run, statements, trusted={STRANGER.public_key})
    assert "signed by another key than the charter's server" in failing(verdict)["charter.adopted"]


def test_masked_rounds_under_keys_that_the_charter_does_not_list_are_found(tmp_path: Path) -> None:
    sites = real.body()["sites"]
    next(site for site in sites if site["id"] == "spare")["identity"] = example.spelt("somebody else")
    _, found = consistent(tmp_path, sites=sites)
    assert found == {"charter.adopted"}


def test_masked_rounds_under_a_roster_with_a_site_that_the_charter_lacks_are_found(tmp_path: Path) -> None:
    body = real.body()
    sites = [site for site in body["sites"] if site["id"] != "spare"]
    officers = [officer for officer in body["officers"] if officer["site"] != "spare"]
    _, found = consistent(tmp_path, sites=sites, officers=officers)
    assert found == {"charter.adopted"}


@pytest.mark.parametrize(
    "told", [{"federation": "city"}, {"purpose": "marketing"}, {"asset": "other records"}], ids=str
)
def test_masked_rounds_that_were_signed_for_something_else_are_found(scene: Scene, told: dict[str, str]) -> None:
    lost = {2: {"switzerland": "MSK"}}
    rounds = [real.masked_round(scene.job, n, lost=lost.get(n), **told) for n in (1, 2, 3)]
    run = replace(scene.run(), transcript=masked.written(rounds))
    body, statements = predicate(run, real.SIGNER)
    found = failing(real.checked(real.forged(body), run, statements))
    assert set(found) == {"charter.approved"}
    assert "another federation, run, purpose or asset" in found["charter.approved"]


def replaced(statements: bytes, body: dict[str, Any], line: bytes) -> tuple[bytes, dict[str, Any]]:
    """Puts another last line into the statements and makes the report name the file that results."""
    body = copy.deepcopy(body)
    data = b"".join([*statements.splitlines(keepends=True)[:-1], line])
    claim(body, "sites.statements")["statements_sha256"] = hashlib.sha256(data).hexdigest()
    return data, body


@pytest.mark.parametrize("how", ["a stranger's key", "another application", "another site's log", "another run"])
def test_a_statement_that_does_not_hold_is_found_where_the_server_hides_it(
    scene: Scene, told: tuple[RealRun, dict[str, Any], bytes], tmp_path: Path, how: str
) -> None:
    run, body, statements = told
    made, reason = UNATTESTED[how]
    data, body = replaced(statements, body, made(scene, tmp_path) or b"")
    found = failing(real.checked(real.forged(body), run, data, transcript=None))
    assert set(found) == {"sites.statements"}
    assert reason in found["sites.statements"]


def test_a_payload_that_the_site_kept_quiet_is_found(scene: Scene, told: tuple[RealRun, dict[str, Any], bytes]) -> None:
    run, body, statements = told
    made, _ = UNATTESTED["a payload kept quiet"]
    data, body = replaced(statements, body, made(scene, Path()) or b"")
    assert set(failing(real.checked(real.forged(body), run, data))) == {"sites.egress"}


@pytest.mark.parametrize("what", ["rolled back", "forked"])
def test_a_log_that_went_back_or_forked_is_found(
    scene: Scene, told: tuple[RealRun, dict[str, Any], bytes], tmp_path: Path, what: str
) -> None:
    run, _, _ = told
    early = scene.witnessed["va"]
    body, statements = predicate(run, real.SIGNER)
    short = early if what == "rolled back" else other_log(tmp_path)
    claim(body, "log.witnessed")["checkpoint"] = base64.b64encode(short).decode()
    found = failing(real.checked(real.forged(body), run, statements))
    assert set(found) == {"log.witnessed"}
    assert ("went back" if what == "rolled back" else "forked") in found["log.witnessed"]


def test_a_fork_beside_an_honest_growth_is_found(told: tuple[RealRun, dict[str, Any], bytes], tmp_path: Path) -> None:
    """The sites' history grows as it should, and the state that is shown at last is a longer one of another."""
    run, _, _ = told
    body, statements = predicate(run, real.SIGNER)
    other_log(tmp_path)
    fork = Log(tmp_path / "other.db").append([Record("run", {"id": f"{n}"}) for n in range(20)], HUB)
    claim(body, "log.witnessed")["checkpoint"] = base64.b64encode(fork).decode()
    found = failing(real.checked(real.forged(body), run, statements))
    assert set(found) == {"log.witnessed"}
    assert "ends in another state than its last one" in found["log.witnessed"]


def test_a_transcript_of_another_run_is_found(scene: Scene, told: tuple[RealRun, dict[str, Any], bytes]) -> None:
    run, body, _ = told
    lines = {site: scene.statement(site, run="town-0002").sign(identity(site)) for site in SITES}
    data = b"".join(lines[site] for site in SITES)
    body = copy.deepcopy(body)
    body["run"]["id"] = "town-0002"
    claim(body, "sites.statements")["statements_sha256"] = hashlib.sha256(data).hexdigest()
    assert set(failing(real.checked(real.forged(body), run, data))) == {"charter.approved", "secagg.rounds"}


@pytest.mark.parametrize(
    ("missing", "unchecked"),
    [
        ("charters", REAL),
        ("statements", REAL[2:]),
        ("transcript", ("secagg.rounds",)),
    ],
)
def test_what_is_not_at_hand_is_not_checked(
    told: tuple[RealRun, dict[str, Any], bytes], missing: str, unchecked: tuple[str, ...]
) -> None:
    run, body, statements = told
    verdict = real.checked(real.forged(copy.deepcopy(body)), run, statements, **{missing: None})
    assert verdict.exit_code == 3
    assert {one.id for one in verdict.claims if one.verdict == "unchecked"} == set(unchecked)
    assert not failing(verdict)


@pytest.mark.parametrize("name", ["charters", "statements"])
@pytest.mark.parametrize("junk", [b"", b"\n", b"{}\n", b"\xff", b"[" * 5000 + b"\n"])
def test_any_bytes_beside_a_report_end_in_a_verdict(
    told: tuple[RealRun, dict[str, Any], bytes], name: str, junk: bytes
) -> None:
    run, body, statements = told
    digest = hashlib.sha256(junk).hexdigest()
    body = copy.deepcopy(body)
    target, key = (
        ("charter.adopted", "charters_sha256") if name == "charters" else ("sites.statements", "statements_sha256")
    )
    claim(body, target)[key] = digest
    verdict = real.checked(real.forged(body), run, statements, **{name: junk})
    assert target in failing(verdict)


def test_a_simulation_cannot_pass_for_real_sites(told: tuple[RealRun, dict[str, Any], bytes]) -> None:
    _, real_body, _ = told
    body = sample.plain_predicate()
    body["run"]["engine"] = "sites"
    verdict = sample_verdict(body)
    assert "report.consistency" in failing(verdict)
    body = sample.plain_predicate()
    body["claims"] += [one for one in copy.deepcopy(real_body["claims"]) if one["id"] in REAL]
    assert "report.consistency" in failing(sample_verdict(body))


def sample_verdict(body: dict[str, Any]) -> Verdict:
    return verify(sample.forged(body), trusted={sample.KEY.public_key}, model_sha256=sample.MODEL_SHA256)


def test_the_page_escapes_what_strangers_wrote(scene: Scene) -> None:
    run = scene.run()
    evil = scene.statement("va", refusals=Refusal.counted([("<b>x</b>", "<script>")]))
    body, _ = predicate(replace(run, statements={**run.statements, SITES[3]: evil.sign(identity("va"))}), real.SIGNER)
    text = page.render(real.forged(body)).decode()
    assert "&lt;script&gt;" in text
    assert "<b>x</b>" not in text
