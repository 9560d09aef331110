"""What the transcript proves: an honest one holds, and nothing that was changed does, whoever signed the report again.

Attempts come from the real machines; what they sign is computed again by `tests/privacy/secagg/independent.py`.
"""

import base64
import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from privacy.audit import canonical, masked_rounds, transcript
from privacy.audit.transcript import AttemptRecord
from privacy.audit.verify import Verdict, verify
from privacy.errors import LocalProtocolError, VerificationError
from privacy.secagg import effects
from privacy.secagg.context import Roster, RoundContext, Thresholds
from tests.privacy.audit import masked, sample
from tests.privacy.secagg import independent

HONEST = masked.signed_rounds()
LINES = HONEST.splitlines(keepends=True)
CLAIM = masked_rounds.claim_of(HONEST)
REPORT = sample.signed(masked.predicate())


def checked(report: bytes, signed: bytes | None) -> Verdict:
    return verify(
        report,
        trusted={sample.KEY.public_key},
        model_sha256=sample.MODEL_SHA256,
        transcript=signed,
        ledgers=sample.ledgers_file(),
    )


def outcome(verdict: Verdict, claim: str = "secagg.rounds") -> tuple[str, str]:
    (found,) = [one for one in verdict.claims if one.id == claim]
    return found.verdict, found.why


def rounds_claim(body: dict[str, Any]) -> dict[str, Any]:
    (claim,) = [one for one in body["claims"] if one["id"] == "secagg.rounds"]
    assert isinstance(claim, dict)
    return claim


def wrong_with(signed: bytes, claim: dict[str, Any] = CLAIM) -> str:
    """What is found although the report was signed anew and names this very transcript."""
    named = {**claim, "transcript_sha256": hashlib.sha256(signed).hexdigest()}
    return "; ".join(masked_rounds.problems(named, signed, lambda _line: None))


# An honest run


def test_an_honest_run_holds() -> None:
    verdict = checked(sample.signed(masked.predicate(private=True)), HONEST)
    assert verdict.exit_code == 0
    assert [(claim.id, claim.kind) for claim in verdict.claims[6:]] == [
        ("secagg.rounds", "proved"),
        ("secagg.egress", "asserted"),
    ]
    why = outcome(verdict)[1]
    for words in (
        "15 sums over 3 or 4 sites",
        "1 attempt, says the coordinator, opened nothing",
        "of 4 sites at least 3",
        "not shown: whose keys these are, how sites trained, that no other sum was opened",
    ):
        assert words in why
    assert "cannot show what else was sent" in outcome(verdict, "secagg.egress")[1]


def test_the_claim_says_what_happened() -> None:
    claim = CLAIM
    course = {(one["round"], one["attempt"]): one for one in claim["attempts"]}
    assert list(course) == sorted([*((n, 1) for n in range(1, 16)), (7, 2)])
    assert course[4, 1]["survivors"] == ["cleveland", "hungary", "va"]
    assert course[7, 1]["aborted"] == "U1 has fewer than 3 sites"
    assert course[7, 2]["survivors"] == sorted(sample.N_TRAIN)
    assert claim["cohorts"] == [{"sites": sorted(sample.N_TRAIN), "n_c": 1, "t": 3, "min_survivors": 3, "min_cover": 3}]
    roots = [one["model_root"] for one in claim["attempts"] if one["model_root"]]
    assert len(set(roots)) == 15
    assert claim["transcript_sha256"] == hashlib.sha256(HONEST).hexdigest()


def test_what_is_written_is_read_back() -> None:
    roster, found = transcript.decode(HONEST)
    assert roster == masked.ROSTER
    assert tuple(found) == masked.records()


def test_the_signatures_are_those_of_a_second_implementation() -> None:
    signed = masked.records()[3].signed  # switzerland was lost on the way: U2 is larger than U3
    assert signed is not None
    ctx = independent.hashed("ctx", signed.context)
    u1 = [part for site in sorted(signed.adverts) for part in (site, signed.adverts[site].c, signed.adverts[site].s)]
    u1h = independent.hashed("u1", ctx, *u1)
    survivors = independent.hashed("u3", ctx, u1h, *signed.survivors)
    for site in signed.survivors:
        seed, advert = hashlib.sha256(site.encode()).digest(), signed.adverts[site]
        digests = signed.y_digests[site]
        masks = independent.hashed("msk", ctx, u1h, site, *(part for k in sorted(digests) for part in (k, digests[k])))
        assert advert.sig == independent.signature(
            seed, "adv", independent.hashed("adv", ctx, site, advert.c, advert.s)
        )
        assert signed.msk_signatures[site] == independent.signature(seed, "msk", masks)
        assert signed.con_signatures[site] == independent.signature(seed, "u3", survivors)


def test_without_the_transcript_the_claim_is_unchecked() -> None:
    verdict = checked(REPORT, None)
    answer, why = outcome(verdict)
    assert (answer, verdict.exit_code) == ("unchecked", 3)
    assert "transcript/secagg.jsonl" in why
    assert hashlib.sha256(HONEST).hexdigest() in why


def test_a_report_without_masks_ignores_a_transcript() -> None:
    verdict = checked(sample.signed(), b"anything")
    assert verdict.exit_code == 0
    assert not [claim for claim in verdict.claims if claim.id.startswith("secagg")]


def test_the_transcript_of_another_run_fails() -> None:
    other = masked.written([masked.attempt(1)])
    assert outcome(checked(REPORT, other)) == (
        "fails", f"the transcript has SHA-256 {hashlib.sha256(other).hexdigest()[:16]}..., the report's is another"
    )  # fmt: skip


# Changed transcripts, named anew by a report that its key's holder signed again


def swapped(values: dict[str, Any], one: str, other: str) -> None:
    values[one], values[other] = values[other], values[one]


def in_context(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """Puts another context into a line; the sites signed the one before."""

    def change(line: dict[str, Any]) -> None:
        context = RoundContext.decode(base64.b64decode(line["context"]))
        line["context"] = base64.b64encode(dataclasses.replace(context, **changes).encode()).decode()

    return change


def flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[7] ^= 1
    return base64.b64encode(raw).decode()


def without(key: str, site: str) -> Callable[[dict[str, Any]], None]:
    def change(line: dict[str, Any]) -> None:
        del line[key][site]

    return change


def lone_signer(line: dict[str, Any]) -> None:
    line["agreed"] = {site: line["agreed"][site] for site in ("cleveland", "va")}


Edit = Callable[[dict[str, Any]], object]
OTHER_DIGEST = base64.b64encode(bytes(32)).decode()
# What is changed in the line of round 3, and what the verifier says about it.
TAMPERED: dict[str, tuple[str, Edit]] = {
    "a survivor removed": ("masked inputs are not those", lambda v: v["survivors"].remove("va")),
    "a survivor removed with its input": (
        "not one of them",
        lambda v: [v["survivors"].remove("va"), v["masked"].pop("va")],
    ),
    "a survivor removed with everything of it": (
        "signature of cleveland over the survivors",
        lambda v: [v["survivors"].remove("va"), v["masked"].pop("va"), v["agreed"].pop("va")],
    ),
    "a survivor listed twice": ("not sorted, or repeats", lambda v: v["survivors"].insert(0, "cleveland")),
    "a survivor from outside": ("U3 has sites from outside", lambda v: v["survivors"].append("zz")),
    "survivors out of order": ("not sorted", lambda v: v["survivors"].reverse()),
    "two survivors": ("fewer than 3 sites", lambda v: v.update(survivors=["cleveland", "va"])),
    "a sharer removed": ("U3 has sites from outside", lambda v: v["u2"].remove("va")),
    "a sharer without keys": ("U2 has sites from outside", lambda v: v["u2"].append("zz")),
    "keys of a site outside the cohort": (
        "U1 has sites from outside",
        lambda v: v["adverts"].update(spare=v["adverts"]["va"]),
    ),
    "no keys of a site": ("U2 has sites from outside", without("adverts", "va")),
    "keys swapped": ("signature of cleveland over its keys", lambda v: swapped(v["adverts"], "cleveland", "va")),
    "a site's key used twice": ("a key occurs twice", lambda v: v["adverts"]["va"].update(v["adverts"]["hungary"])),
    "a public key in another encoding": (
        "one encoding",
        lambda v: v["adverts"]["va"].update(c=base64.b64encode(b"\xff" * 32).decode()),
    ),
    "another key": ("over its keys", lambda v: v["adverts"]["va"].update(s=flipped(v["adverts"]["va"]["s"]))),
    "another signature of keys": ("over its keys", lambda v: v["adverts"]["va"].update(sig=v["masked"]["va"]["sig"])),
    "inputs swapped": ("over its masked input", lambda v: swapped(v["masked"], "cleveland", "va")),
    "an input without its signer": ("masked inputs are not those", without("masked", "va")),
    "another input": ("va over its masked input", lambda v: v["masked"]["va"]["digests"].update({"0": OTHER_DIGEST})),
    "an input for another region": (
        "did not send the active regions",
        lambda v: v["masked"]["va"]["digests"].update({"1": OTHER_DIGEST}),
    ),
    "no input": ("did not send the active regions", lambda v: v["masked"]["va"].update(digests={})),
    "signatures of the survivors swapped": ("over the survivors", lambda v: swapped(v["agreed"], "cleveland", "va")),
    "too few sign the survivors": ("2 sites signed the survivors, not 3", lone_signer),
    "a stranger signs the survivors": ("not one of them", lambda v: v["agreed"].update(zz=v["agreed"]["va"])),
    "no active region": ("active regions are not", lambda v: v.update(active=[])),
    "another active region": ("active regions are not", lambda v: v.update(active=[0, 1])),
    "weaker thresholds": (
        "over its keys",
        in_context(thresholds=Thresholds(n_c=0, t=3, min_survivors=3, min_cover=3)),
    ),
    "another model root": ("over its keys", in_context(model_root=bytes(32))),
    "another job": ("over its keys", in_context(job=bytes(32))),
    "another run": ("over its keys", in_context(run=bytes(16))),
    "another roster": ("another roster", in_context(roster=bytes(32))),
    "another attempt in the context": ("that of another attempt", in_context(attempt=2)),
    "another attempt on the line": ("that of another attempt", lambda v: v.update(attempt=2)),
    "no context": ("round 3, attempt 1: a message is cut short", lambda v: v.update(context="rg==")),
    "an unknown field": ("line 4 of the transcript", lambda v: v.update(extra=1)),
    "a missing field": ("line 4 of the transcript", lambda v: v.pop("u2")),
    "a site that cannot be": ("line 4 of the transcript", lambda v: v["u2"].append("A B")),
    "base64 with spare bits": (
        "not canonical",
        lambda v: v["masked"]["va"].update(sig=v["masked"]["va"]["sig"][:-3] + "B=="),
    ),
}


@pytest.mark.parametrize(("said", "edit"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_changed_line_fails_even_if_the_report_names_it(said: str, edit: Edit) -> None:
    line = json.loads(LINES[3])
    edit(line)
    changed = b"".join([*LINES[:3], canonical.dumps(line) + b"\n", *LINES[4:]])
    assert changed != HONEST
    assert said in wrong_with(changed)


def header_with(**changes: Any) -> bytes:
    return canonical.dumps({**json.loads(LINES[0]), **changes}) + b"\n"


KEYS = json.loads(LINES[0])["keys"]
REARRANGED: dict[str, tuple[str, list[bytes]]] = {
    "a line dropped": ("'attempts' is not what the transcript proves", [*LINES[:3], *LINES[4:]]),
    "an aborted line dropped": ("'attempts' is not what the transcript proves", [*LINES[:7], *LINES[8:]]),
    "a line twice": ("round 3, attempt 1 is listed after 3, 1", [*LINES[:4], LINES[3], *LINES[4:]]),
    "two lines swapped": ("is listed after", [*LINES[:3], LINES[4], LINES[3], *LINES[5:]]),
    "another reason": (
        "'attempts' is not what the transcript proves",
        [*LINES[:7], LINES[7].replace(b"fewer", b"less"), *LINES[8:]],
    ),
    "aborted, not opened": (
        "'attempts' is not what the transcript proves",
        [*LINES[:3], transcript.line(AttemptRecord(3, 1, None, "x")), *LINES[4:]],
    ),
    "nothing opened": ("no attempt whose sum was opened", [LINES[0], LINES[7]]),
    "no attempts": ("no attempt whose sum was opened", LINES[:1]),
    "nothing": ("line 1 of the transcript does not end", []),
    "no roster": ("does not begin with a roster", LINES[1:]),
    "two rosters": ("a second roster", [LINES[0], *LINES]),
    "a roster of other keys": ("another roster", [header_with(keys={**KEYS, "va": KEYS["spare"]}), *LINES[1:]]),
    "a roster with a new key": ("another roster", [header_with(keys={**KEYS, "va": OTHER_DIGEST}), *LINES[1:]]),
    "a roster without a site": (
        "another roster",
        [header_with(keys={site: key for site, key in KEYS.items() if site != "va"}), *LINES[1:]],
    ),
    "a roster of another version": ("another roster", [header_with(version=2), *LINES[1:]]),
    "another protocol": ("line 1 of the transcript", [header_with(protocol="FSA2"), *LINES[1:]]),
    "cut short": ("does not end in a newline", [*LINES[:-1], LINES[-1][:-1]]),
    "an empty line": ("not canonical JSON", [*LINES[:3], b"\n", *LINES[3:]]),
    "a space": ("not in canonical form", [*LINES[:3], LINES[3].replace(b":", b": ", 1), *LINES[4:]]),
    "carriage returns": ("canonical", [line.replace(b"\n", b"\r\n") for line in LINES]),
}
REARRANGED["a roster of other keys"] = (
    "two sites of the roster have the same key", REARRANGED["a roster of other keys"][1]
)  # fmt: skip


@pytest.mark.parametrize(("said", "lines"), REARRANGED.values(), ids=REARRANGED.keys())
def test_rearranged_lines_fail_even_if_the_report_names_them(said: str, lines: list[bytes]) -> None:
    assert said in wrong_with(b"".join(lines))


def test_a_report_that_is_signed_again_over_a_changed_transcript_fails() -> None:
    changed = b"".join([*LINES[:3], *LINES[4:]])
    body = masked.predicate()
    rounds_claim(body).update(transcript_sha256=hashlib.sha256(changed).hexdigest())
    verdict = checked(sample.forged(body), changed)
    assert (verdict.authentic, verdict.exit_code) == (True, 1)
    assert outcome(verdict) == ("fails", "'attempts' is not what the transcript proves")


def test_an_attempt_signed_for_another_job_does_not_fit_the_others() -> None:
    """Its signatures hold, but not for the same run of the same settings."""
    changed = masked.written([masked.attempt(1), masked.attempt(2, job=bytes(32))])
    with pytest.raises(VerificationError, match="round 2, attempt 1 has another job than before"):
        masked_rounds.claim_of(changed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("federation", "city"),
        ("run", bytes(16)),
        ("bits", 32),
        ("fraction_bits", 19),
        ("purpose", "marketing"),
        ("asset", "other records"),
        ("fixed_set", True),
    ],
)
def test_attempts_that_do_not_agree_are_no_run(name: str, value: Any) -> None:
    changed = masked.written([masked.attempt(1), masked.attempt(2, **{name: value})])
    with pytest.raises(VerificationError, match=f"round 2, attempt 1 has another {name} than before"):
        masked_rounds.claim_of(changed)


def test_a_sum_that_is_written_down_as_aborted_passes_and_so_is_said_not_to_be_shown() -> None:
    """Two sums of round 1 were opened, so their difference was: no site signs that an attempt came to nothing."""
    hidden = AttemptRecord(1, 1, None, "too few answered")
    claim = masked_rounds.claim_of(masked.written([hidden, masked.attempt(1, 2)]))
    said = masked_rounds.summary(claim)
    assert "1 attempt, says the coordinator, opened nothing" in said
    assert said.endswith("that no other sum was opened")


def test_a_cohort_may_shrink_and_its_thresholds_with_it() -> None:
    """A site whose budget is spent is asked no more."""
    fewer = masked.SITES[:3]
    claim = masked_rounds.claim_of(masked.written([*masked.records()[:2], masked.attempt(3, cohort=fewer)]))
    assert [one["cohort"] for one in claim["attempts"]] == [0, 0, 1]
    assert claim["cohorts"] == [
        CLAIM["cohorts"][0],
        {"sites": list(fewer), "n_c": 0, "t": 2, "min_survivors": 3, "min_cover": 3},
    ]
    assert "of 4 sites at least 3 in a sum, threshold 3, 1 may collude; of 3 sites" in masked_rounds.summary(claim)


def test_signatures_under_a_roster_of_ones_own_prove_ones_own_roster_only() -> None:
    """Whoever invents the sites' keys gets a claim about another roster, which is what the reader must compare."""
    assert masked_rounds.claim_of(HONEST)["roster"] == masked.ROSTER.digest.hex()
    invented = Roster(1, {**masked.ROSTER.keys, "va": bytes(32)})
    with pytest.raises(VerificationError, match="another roster"):
        masked_rounds.claim_of(masked.written(masked.records(), invented))


# Lies about an honest transcript, properly signed

LIES: dict[str, Edit] = {
    "a survivor less": lambda c: c["attempts"][0]["survivors"].remove("va"),
    "a survivor more": lambda c: c["attempts"][3].update(survivors=list(masked.SITES)),
    "another survivor": lambda c: c["attempts"][3].update(survivors=["hungary", "switzerland", "va"]),
    "another model root": lambda c: c["attempts"][2].update(model_root="0" * 64),
    "another context": lambda c: c["attempts"][2].update(ctx="0" * 64),
    "another reason": lambda c: c["attempts"][6].update(aborted="a power cut"),
    "an attempt opened that was not": lambda c: c["attempts"][6].update(
        survivors=list(masked.SITES), cohort=0, model_root="1" * 64, ctx="1" * 64, aborted=None
    ),
    "an attempt hidden": lambda c: (c["attempts"].pop(6), c["attempts"][6].update(attempt=1)),
    "a larger cohort": lambda c: c["cohorts"][0]["sites"].append("wessex"),
    "more may collude": lambda c: c["cohorts"][0].update(n_c=2),
    "a higher threshold": lambda c: c["cohorts"][0].update(t=4, min_survivors=4),
    "a lower threshold": lambda c: c["cohorts"][0].update(n_c=0, t=3),
    "fewer survivors suffice": lambda c: c["cohorts"][0].update(min_survivors=2),
    "a larger cover": lambda c: c["cohorts"][0].update(min_cover=4),
    "another cohort": lambda c: (
        c["cohorts"].append({**c["cohorts"][0], "n_c": 0}),
        c["attempts"][0].update(cohort=1),
    ),
    "another ring": lambda c: c.update(ring_bits=32),
    "a fixed set": lambda c: c.update(fixed_set=True),
    "another roster": lambda c: c.update(roster="0" * 64),
    "another job": lambda c: c.update(job="0" * 64),
}


AGAINST_THE_RULES = {
    "a larger cohort", "more may collude", "fewer survivors suffice", "a fixed set", "a higher threshold",
    "an attempt opened that was not", "a larger cover",
}  # fmt: skip


@pytest.mark.parametrize("said", LIES)
def test_a_signed_lie_about_masked_rounds_fails(said: str) -> None:
    body = masked.predicate()
    claim = rounds_claim(body)
    LIES[said](claim)
    # The rounds tell the same lie, so that nothing but the transcript can contradict it.
    for one in claim["attempts"]:
        entry = body["rounds"][one["round"] - 1]
        entry.update(attempts=one["attempt"], answered=one["survivors"])
        lost = [site for site in masked.SITES if site not in one["survivors"]]
        entry["missing"] = [{"site": site, "reason": "lost"} for site in lost]
        for region in one["regions"]:
            region["holders"] = len(one["survivors"])
    verdict = checked(sample.forged(sample.told(body)), HONEST)
    assert verdict.authentic
    assert outcome(verdict, "report.consistency")[0] == "holds"
    answer, why = outcome(verdict)
    assert answer == "fails"
    assert "is not what the transcript proves" in why or said in AGAINST_THE_RULES
    assert verdict.exit_code == 1


# Any bytes

SHORT = masked.written([masked.records()[3], *masked.records()[6:8]])
SHORT_CLAIM = masked_rounds.claim_of(SHORT)
SHORT_LINES = SHORT.splitlines(keepends=True)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(st.integers(0, len(SHORT) - 1), st.integers(0, 7))
@QUICK
def test_a_flipped_bit_never_verifies(position: int, bit: int) -> None:
    changed = bytearray(SHORT)
    changed[position] ^= 1 << bit
    assert "SHA-256" in masked_rounds.problems(SHORT_CLAIM, bytes(changed), lambda _line: None)[0]
    assert wrong_with(bytes(changed), SHORT_CLAIM)


@given(st.integers(0, len(SHORT)), st.integers(0, 200), st.binary(max_size=40))
@QUICK
def test_a_splice_never_verifies(position: int, removed: int, added: bytes) -> None:
    changed = SHORT[:position] + added + SHORT[position + removed :]
    assume(changed != SHORT)
    assert wrong_with(changed, SHORT_CLAIM)


@st.composite
def near_lines(draw: st.DrawFn) -> bytes:
    """A transcript in which a few values of one line are others that JSON can say."""
    place = draw(st.integers(0, 3))
    line = json.loads(SHORT_LINES[place])
    for _ in range(draw(st.integers(1, 3))):
        here: Any = line
        while isinstance(here, dict | list) and here:
            key = draw(st.sampled_from(list(here) if isinstance(here, dict) else list(range(len(here)))))
            if not isinstance(here[key], dict | list) or draw(st.integers(0, 4)) == 0:
                here[key] = copy.deepcopy(draw(NASTY))
                break
            here = here[key]
    return b"".join([*SHORT_LINES[:place], canonical.dumps(line) + b"\n", *SHORT_LINES[place + 1 :]])


NASTY: st.SearchStrategy[Any] = st.sampled_from(
    ["", "va", "roster", "signed", "aborted", "AAAA", OTHER_DIGEST, KEYS["va"], 0, 1, 3, 2**53 - 1]
) | st.sampled_from([True, None, [], {}, base64.b64encode(b"\x9f" * 8).decode(), ["va"], {"va": "x"}, [[]]])


@given(near_lines())
@QUICK
def test_any_line_near_a_real_one_ends_in_a_verdict(changed: bytes) -> None:
    assume(changed != SHORT)
    why = wrong_with(changed, SHORT_CLAIM)
    assert why
    assert "\n" not in why
    assert len(why) < 400


@given(st.binary(max_size=300))
@QUICK
def test_any_bytes_end_in_a_verdict(data: bytes) -> None:
    assert wrong_with(data)


def test_a_huge_transcript_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "MAX_TRANSCRIPT_BYTES", len(HONEST) - 1)
    with pytest.raises(VerificationError, match="larger than"):
        masked_rounds.claim_of(HONEST)


# What is written


def test_a_long_reason_is_cut_and_can_be_read_back() -> None:
    record = AttemptRecord.of(1, 1, effects.Aborted("x" * 1000))
    assert list(transcript.decode(masked.written([record]))[1]) == [record]
    assert len(record.reason) == 400


def test_a_sum_without_a_transcript_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        AttemptRecord.of(1, 1, effects.Finished(("a", "b", "c")))
