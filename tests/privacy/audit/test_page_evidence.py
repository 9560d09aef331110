"""The page's account of tests, attacks, ledgers and signatures: every figure stands there, and nothing bad hides."""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from privacy.attacks.membership import dp_ceiling
from privacy.audit import envelope, report
from privacy.audit.html import charts_audit, page, page_attacks
from privacy.audit.html.charts_audit import BoundRow, StripRow
from privacy.keys.signing import SigningKey
from tests.privacy.audit import masked, measured, promises, sample
from tests.privacy.audit.test_page import HOSTILE, Document, first_screen, section

Body = dict[str, Any]
SITE_KEYS = {site: SigningKey(bytes([k] * 32)) for k, site in enumerate(("cleveland", "va"), start=1)}


@pytest.fixture(scope="module")
def audited() -> bytes:
    return page.render(sample.audited())


def drawn(change: Callable[[dict[str, Body]], None]) -> bytes:
    """The audited report's page with its claims changed, by id."""
    body = sample.audited_predicate()
    change({claim["id"]: claim for claim in body["claims"]})
    return page.render(sample.forged(body))


# What a reader learns first


def test_the_first_screen_says_what_was_tested_and_attacked(audited: bytes) -> None:
    said = (
        "All 40 tests of 4 release paths passed. No violation was found by canaries in one release, canaries in the "
        "training data, losses of real records and one update turned back into a record."
    )
    assert said in first_screen(audited)
    assert "contradicts" not in Document(audited).text


def violated(claims: dict[str, Body]) -> None:
    claims["audit.one_run"]["paths"][0]["verdict"] = "violation"


def failed(claims: dict[str, Body]) -> None:
    claims["conformance.release"]["sites"][1]["tests"][2]["passed"] = False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (violated, "Attack by canaries in one release: more was measured than is promised."),
        (failed, "Tests of the code that adds noise: 1 of 40 tests of 4 release paths FAILED."),
    ],
)
def test_what_contradicts_the_promise_comes_before_everything(
    change: Callable[[dict[str, Body]], None], said: str
) -> None:
    text = first_screen(drawn(change))
    assert 0 < text.index(f"A measurement contradicts what is promised here. {said}") < text.index("Who is protected")


def test_a_test_that_failed_is_named_and_its_cell_crossed_out() -> None:
    data = drawn(failed)
    assert data.count(b'class="cell failed"') == 1  # though the other tests under A3 passed
    said = "hungary (noise in every step, floating point): A3, every key byte counts Would the tests have noticed?"
    assert said in section(data, "tested")


def test_an_audit_whose_control_failed_is_called_inconclusive() -> None:
    def change(claims: dict[str, Body]) -> None:
        claims["audit.one_run"]["paths"][0]["verdict"] = "inconclusive"
        claims["audit.one_run"]["paths"][0]["controls"][3]["fired"] = False
        claims["conformance.release"]["sites"][0]["controls"][0]["fired"] = False

    data = drawn(change)
    assert "passed; but a defect made on purpose passed, too." in first_screen(data)
    assert "Inconclusive, since a control failed, were canaries in one release." in first_screen(data)
    assert "Not noticed: seed fixed." in section(data, "attacks")
    assert "The tests did not see all of them, so a pass shows little: cleveland" in section(data, "tested")


def test_an_audit_without_power_says_so(audited: bytes) -> None:
    def change(claims: dict[str, Body]) -> None:
        claims["audit.one_run"]["paths"][0]["ceiling"] = {"steinke": "1.0000", "fdp": "1.2000"}
        claims["audit.black_box"]["ceiling"] = {"steinke": "1.0000", "fdp": "1.2000"}

    assert section(drawn(change), "attacks").count("No power") == 2
    assert "No power" not in section(audited, "attacks")


# Every figure


def test_every_bound_stands_in_a_table(audited: bytes) -> None:
    text = section(audited, "attacks")
    claim = measured.one_run().claim["paths"][0]
    for name, found in (
        ("the code of the run", claim["measurement"]),
        ("noise halved", claim["controls"][0]["measurement"]),
    ):
        lower = found["lower"]
        above = "YES" if name == "noise halved" else "no"
        row = f"{name} {lower['pair']} {lower['pair_999']} {lower['fdp']} {lower['steinke']} no {above}"
        assert row in text, row
    repeated = claim["controls"][3]["measurement"]["lower"]
    assert (
        f"seed fixed {repeated['pair']} {repeated['pair_999']} {repeated['fdp']} {repeated['steinke']} YES no" in text
    )
    assert "noise off – –" in text  # noise that is not there has no shape
    assert "beyond the formal value ε = 1.5051 at δ = 0.00001" in text
    assert "control 5.7151 2.8771" in text


def test_every_rate_stands_beside_what_dp_allows(audited: bytes) -> None:
    text = section(audited, "attacks")
    claim = next(one for one in sample.audited_predicate()["claims"] if one["id"] == "audit.membership")
    va = claim["sites"][-1]
    point = va["points"][2]
    row = (
        f"va 85 45 {float(va['auc']):.3f} 10 % {100 * float(point['tpr']):.3g} % {100 * float(point['low']):.3g} % to "
        f"{100 * float(point['high']):.3g} % {100 * float(point['ceiling']):.3g} %"
    )
    assert row in text


def test_the_ceiling_that_is_drawn_is_the_one_that_bounds() -> None:
    corners = page_attacks.ceiling(0.9646, 0.001)
    for rate, highest in corners:
        assert highest == pytest.approx(dp_ceiling(rate, 0.9646, 0.001), abs=1e-9)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(corners) if b[0] > a[0]]
    assert slopes == sorted(slopes, reverse=True)


def test_a_record_is_shown_beside_what_came_back_of_it(audited: bytes) -> None:
    text = section(audited, "attacks")
    assert "from the update in the clear reconstructed" in text
    assert re.search(r"thal 1\.000 1\.000 0\.\d{3} 0\.500", text)
    assert "guess, without seeing anything 9.5 dB" in text


def test_a_picture_is_drawn_pixel_by_pixel() -> None:
    drawing = charts_audit.pixels([0.0, 0.0, 1.0, -3.0, 0.5, 9.0], 3, name="p", title="t", description="d")
    assert 'viewBox="0 0 3 2"' in drawing
    assert '<path fill="#000" d="M0,0h2v1h-2zM0,1h1v1h-1z"/>' in drawing  # beyond black is black
    assert '<path fill="#fff" d="M2,0h1v1h-1zM2,1h1v1h-1z"/>' in drawing
    body = sample.audited_predicate()
    body["claims"][-1] = measured.inversion_claim(image=True)
    text = section(page.render(sample.forged(body)), "attacks")
    assert "from the masked update" in text


def test_an_estimate_is_not_called_a_bound() -> None:
    body = promises.predicate("central")
    body["claims"].append(measured.one_shot_claim([promises.of(body, "central")]))
    text = section(page.render(sample.forged(body)), "attacks")
    assert "Canary sites in a copy of the run estimate 100 made-up sites" in text
    assert "It is no bound, so it has no verdict." in text
    assert "formal value 0.9282" in text


def test_tests_and_ledgers_are_told(audited: bytes) -> None:
    tested, ledgers = section(audited, "tested"), section(audited, "ledgers")
    assert "A1 noise scale 4 of 4 p = 0.84 p of at least 0.000025" in tested
    assert "A4 largest influence 4 of 4 0.99 at most 1.000001" in tested
    assert "A defect was made on purpose in 16 copies of the same code. The tests saw every one." in tested
    assert re.search(r"switzerland \d+ 15 [0-9a-f]{16}", ledgers)
    assert "transcript/ledgers.jsonl by every entry" in Document(audited).text


def test_of_several_sites_the_worst_measurement_is_told() -> None:
    def change(claims: dict[str, Body]) -> None:
        by_name = {test["name"]: test for test in claims["conformance.release"]["sites"][2]["tests"]}
        by_name["noise scale"]["p_value"] = "0.01"
        by_name["largest influence"]["statistic"] = "0.995"

    tested = section(drawn(change), "tested")
    assert "A1 noise scale 4 of 4 p = 0.01 p of at least 0.000025" in tested
    assert "A4 largest influence 4 of 4 0.995 at most 1.000001" in tested


# Pictures


def test_a_failed_test_differs_in_shape_and_colour() -> None:
    rows = [StripRow("a", "", (True, False, None))]
    drawing = charts_audit.strip(rows, ("A1", "A2", "A3"), name="s", title="t", description="d")
    assert re.findall(r'class="cell (\w+)" x="([\d.]+)%"', drawing) == [
        ("passed", "0.20"), ("failed", "33.53"), ("absent", "66.87"),
    ]  # fmt: skip
    assert len(set(re.findall(r' d="([^"]+)"', drawing))) == 3


def test_a_bound_stands_on_its_side_of_the_formal_value() -> None:
    row = BoundRow("a", "", (("steinke", 0.5), ("fdp", 1.5), ("pair", None), ("pair_999", 400.0)))
    drawing = charts_audit.bounds([row], formal=1.0, label="f", name="b", title="t", description="d")
    (line,) = re.findall(r'class="limit" x1="([\d.]+)%"', drawing)
    marks = re.findall(r'<svg x="([\d.]+)%" y="\d+" overflow="visible"><path class="bound ([a-z_ 9]+)"', drawing)
    assert [name for _, name in marks] == ["steinke", "fdp", "pair_999 outside"]
    assert float(marks[0][0]) < float(line) < float(marks[1][0]) < float(marks[2][0])


def test_methods_differ_in_shape_and_not_only_in_colour() -> None:
    shapes = [re.findall(r' d="([^"]+)"', charts_audit.key(name)) for name in page_attacks.METHODS]
    assert len({tuple(shape) for shape in shapes}) == len(page_attacks.METHODS)


# Who signed


def signers(*names: str) -> Body:
    body = sample.predicate()
    body["cosigners"] = report.cosigner_entries({site: SITE_KEYS[site].public_key for site in names})
    return body


def test_sites_that_signed_and_those_that_did_not_are_told() -> None:
    alone = report.sign(signers("cleveland", "va"), sample.MODEL_SHA256, sample.KEY)
    text = first_screen(page.render(alone))
    assert "Signed by the run, with a key made for it and by no site; not by cleveland, va." in text
    both = envelope.add(alone, SITE_KEYS["va"])
    assert "and by 1 of 2 sites; not by cleveland." in first_screen(page.render(both))
    table = section(page.render(both), "signed")
    assert f"cleveland NO {SITE_KEYS['cleveland'].keyid[:16]} va yes {SITE_KEYS['va'].keyid[:16]}" in table


def test_a_signature_by_somebody_unnamed_is_shown() -> None:
    data = envelope.add(sample.signed(), sample.OTHER_KEY)
    assert f"not named in the report yes {sample.OTHER_KEY.keyid[:16]}" in section(page.render(data), "signed")


def test_an_auditor_s_report_tells_whose_report_it_took_up() -> None:
    run = envelope.add(report.sign(signers("cleveland", "va"), sample.MODEL_SHA256, sample.KEY), SITE_KEYS["va"])
    claims, _scores = measured.attacked([sample.predicate()["claims"][1]])
    data = page.render(report.audited(run, claims, sample.OTHER_KEY, datetime(2026, 11, 23, 9, tzinfo=UTC)))
    assert "Signed by the auditor. The run's own report inside is signed by the run" in first_screen(data)
    assert "collegium verify audit.html --trust keys.txt" in first_screen(data)
    assert "transcript/canaries.jsonl by every score" in section(data, "verify")
    text = section(data, "signed")
    assert "added what was measured on 2026-11-23 09:00 UTC" in text
    assert hashlib.sha256(run).hexdigest() in text
    assert f"the auditor yes {sample.OTHER_KEY.keyid[:16]}" in text
    assert f"cleveland NO {SITE_KEYS['cleveland'].keyid[:16]}" in text


# What a forger might write


def test_hostile_names_in_measured_claims_stay_text() -> None:
    def change(claims: dict[str, Body]) -> None:
        name = HOSTILE[:60]
        claims["conformance.release"]["sites"][0]["site"] = name
        claims["conformance.release"]["sites"][0]["tests"][0].update(name=name, passed=False)
        claims["audit.black_box"]["control"]["model"] = HOSTILE
        claims["audit.membership"]["sites"][0]["who"] = name
        claims["audit.inversion"]["fields"][0] = name
        claims["ledger.chain"]["ledgers"][0]["holder"] = name

    document = Document(drawn(change))
    assert document.text.count("alert(1)") >= 8
    assert len(document.named("script")) == 1
    assert (document.wrong, document.open) == ([], [])


def test_strange_numbers_in_measured_claims_are_still_drawn() -> None:
    def change(claims: dict[str, Body]) -> None:
        path = claims["audit.one_run"]["paths"][0]
        path.update(formal="0.0000")
        path["measurement"]["lower"].update(steinke="999999999.9999", pair=None, pair_999=None)
        claims["audit.black_box"].update(formal=None)
        site = claims["audit.membership"]["sites"][0]
        site.update(roc=[[9**15, 9**15], [0, 0]], epsilon="999999999.0000", delta="99")
        claims["audit.membership"]["sites"][1].update(roc=[], epsilon=None, delta=None)
        claims["audit.inversion"].update(width=9**15, form="image")
        claims["audit.inversion"]["views"][0].update(values=["-99999", "0.5"], mse="-0")
        claims["audit.inversion"]["guess"].update(mse="99999")
        for entry in claims["privacy.epsilon"]["sites"]:
            entry["events"][0].update(noise_multiplier="0.000000001", count=10**7)

    document = Document(drawn(change))
    assert "999999999.9999 or more" in document.text
    assert "This run promises no ε that a bound could exceed." in document.text
    assert "Over the rounds" not in document.text  # too little noise to price
    assert (document.wrong, document.open) == ([], [])


def test_a_run_without_tests_or_attacks_has_no_such_sections() -> None:
    for body in (sample.plain_predicate(), masked.predicate()):
        text = Document(page.render(sample.forged(body))).text
        for heading in ("Tests of the code that adds noise", "What attacks found", "Ledgers Every entry"):
            assert heading not in text
