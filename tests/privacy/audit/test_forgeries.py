"""A forger with the run's files in hand, and a signer who lies: what is found, by whom, and what no document can show.

The first three parts change a report without the key that its readers trust; every such change is rejected, with a
reason. The last two change it *with* that key: the lies that are found all the same, and the list of what is not.
"""

import base64
import copy
import functools
import json
import random
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from privacy.audit import canonical, pricing, report, statement
from privacy.audit import envelope as dsse
from privacy.audit.html import page
from privacy.audit.verify import embedded_envelope, verify
from privacy.dp.accounting import epsilon
from privacy.errors import FederationError
from tests.privacy.audit import ledgers, masked, promises, sample

TRUST = {sample.KEY.public_key}
Body = dict[str, Any]
Path = tuple[str | int, ...]


@pytest.fixture(scope="module")
def envelope() -> bytes:
    return sample.signed()


@pytest.fixture(autouse=True)
def priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accountant's answers are kept: thousands of reports here differ in anything but their events."""
    monkeypatch.setattr(pricing, "epsilon", lambda events, *more: _epsilon(tuple(events), *more))


@functools.cache
def _epsilon(events: Any, delta: Any, relation: Any, accountant: Any) -> float:
    return epsilon(list(events), delta, relation, accountant)


def rejected(data: bytes, **at_hand: Any) -> str:
    """Returns why a verifier with the run's trust set rejects a file; nothing if it does not."""
    at_hand = {"model_sha256": sample.MODEL_SHA256, **at_hand}
    try:
        verdict = verify(data, trusted=TRUST, **at_hand)
    except FederationError as error:
        return str(error)
    return next((f"{claim.id}: {claim.why}" for claim in verdict.claims if claim.verdict == "fails"), "")


def is_reason(why: str) -> bool:
    return bool(why) and "\n" not in why and "Traceback" not in why


def repeatable(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - edits to try, and no secrets


# Bytes


def changed_byte(data: bytes, rng: random.Random) -> bytes:
    """One byte replaced, inserted or removed, or two neighbours swapped, at a random place."""
    at, other = rng.randrange(len(data) - 1), bytes([rng.randrange(256)])
    kind = rng.randrange(4)
    if kind == 0:
        other = other if other[0] != data[at] else bytes([data[at] ^ 1])
        return data[:at] + other + data[at + 1 :]
    if kind == 1:
        return data[:at] + other + data[at:]
    if kind == 2:
        return data[:at] + data[at + 1 :]
    return data[:at] + data[at + 1 : at + 2] + data[at : at + 1] + data[at + 2 :]


def check_bytes(data: bytes, times: int, seed: int) -> None:
    rng = repeatable(seed)
    for _ in range(times):
        changed = changed_byte(data, rng)
        assert changed == data or is_reason(rejected(changed)), base64.b64encode(changed[:200])


def test_a_thousand_changed_bytes_are_rejected(envelope: bytes) -> None:
    check_bytes(envelope, 1000, seed=1)


@pytest.mark.soak
def test_changed_bytes_of_a_larger_report_and_of_a_page_are_rejected(envelope: bytes) -> None:
    check_bytes(promises.signed(), 1000, seed=2)
    check_bytes(page.render(envelope), 300, seed=3)


# Structure: a value edited, everything encoded again as it should be, and signed with a key that nobody trusts


def leaves(value: Any, here: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no object, with the way to it; lists both whole and item by item."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, (*here, key))
        return
    if here:
        yield here, value
    if isinstance(value, list):
        for key, child in enumerate(value):
            yield from leaves(child, (*here, key))


def others(value: Any) -> list[Any]:
    """Values of the same kind that a forger would like better."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, max(0, value - 1), 2 * value]
    if isinstance(value, list):
        return [value[:-1], value[1:], [*value, value[-1]]] if value else []
    if not isinstance(value, str):
        return []
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        number = Decimal(value)
        step = Decimal(1).scaleb(int(number.as_tuple().exponent))
        return [f"{number - step:f}", f"{number + step:f}", f"{2 * number:f}"]
    return ["0" * 64] if re.fullmatch("[0-9a-f]{64}", value) else [f"{value}x", value[:-1] or "y"]


def with_value(body: Body, path: Path, value: Any) -> Body:
    changed = copy.deepcopy(body)
    target: Any = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return changed


def sealed(predicate: Body, key: Any, model_sha256: str = sample.MODEL_SHA256) -> bytes:
    """An envelope around anything, without a check of schema or sense."""
    name = next((claim["file"] for claim in predicate["claims"] if "file" in claim), "model.safetensors")
    body = {
        "_type": statement.STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": model_sha256}}],
        "predicateType": statement.PREDICATE_TYPE,
        "predicate": predicate,
    }
    return dsse.sign(canonical.dumps(body), key)


def check_structure(times: int, seed: int) -> None:
    rng, body = repeatable(seed), sample.predicate()
    every = [(path, value) for path, value in leaves(body) if others(value)]
    for number in range(times):
        path, value = rng.choice(every)
        changed = with_value(body, path, rng.choice(others(value)))
        if number % 2:  # either the forger names himself, or he leaves the honest signer's name over his signature
            changed["signer"] = report.signer_entry(sample.OTHER_KEY)
        why = rejected(sealed(changed, sample.OTHER_KEY))
        assert is_reason(why), path


def test_edited_values_under_another_key_are_rejected() -> None:
    check_structure(60, seed=4)


@pytest.mark.soak
def test_two_hundred_edited_values_under_another_key_are_rejected() -> None:
    check_structure(200, seed=5)


def test_a_signature_of_the_right_key_over_another_report_is_rejected(envelope: bytes) -> None:
    body, other = json.loads(envelope), json.loads(sample.signed(sample.plain_predicate()))
    body["signatures"] = other["signatures"]
    assert "signature" in rejected(canonical.dumps(body) + b"\n")


# Pages: the signed report inside is whole, and what people read around it is not


def altered_pages(drawn: bytes) -> Iterator[bytes]:
    """The page with its visible text, its style or its order changed, outside the envelope."""
    inside = embedded_envelope(drawn)
    before, after = (part.decode() for part in drawn.split(inside))
    body = before.index("<body")
    for place, found in enumerate(re.finditer(r">([^<>]*[A-Za-z0-9][^<>]*)<", before[body:])):
        start, end = body + found.start(1), body + found.end(1)
        text = before[start:end]
        wrong = {
            0: re.sub(r"[0-9]", lambda digit: str((int(digit[0]) + 1) % 10), text),
            1: "",
            2: text + " Checked.",
            3: f'<span style="display:none">{text}</span>',
            4: text.replace(" not ", " ").replace("No ", ""),
        }[place % 5]
        if wrong != text:
            yield before[:start].encode() + wrong.encode() + before[end:].encode() + inside + after.encode()
    for old, new in (
        ("</style>", "main{display:none}</style>"),
        ("<body", "<body hidden"),
        ("</main>", "<p>x</p></main>"),
    ):
        for half in (0, 1):
            parts = [before, after]
            if old in parts[half]:
                parts[half] = parts[half].replace(old, new)
                yield parts[0].encode() + inside + parts[1].encode()
    yield drawn + b"<!-- -->"
    yield drawn.replace(b"</html>", b"<script>document.body.textContent = 'fine'</script></html>")


def check_pages(data: bytes, at_most: int | None) -> int:
    pages = [one for one in altered_pages(page.render(data)) if embedded_envelope(one) == data]
    chosen = pages if at_most is None else repeatable(6).sample(pages, at_most)
    for one in chosen:
        assert rejected(one).startswith("report.page: ")
    return len(chosen)


def test_altered_pages_around_a_valid_report_are_rejected(envelope: bytes) -> None:
    assert check_pages(envelope, 10) == 10


@pytest.mark.soak
def test_every_altered_text_of_a_page_is_rejected(envelope: bytes) -> None:
    assert check_pages(envelope, None) >= 50


# A signer who lies. Everything is encoded, counted and signed as it should be, with the key that readers trust.


@functools.cache
def _everything() -> tuple[Body, bytes]:
    return ledgers.with_ledgers(promises.predicate())


def told(edit: Callable[[Body], object]) -> str:
    """Why a report with everything in it is rejected once its own signer has edited it."""
    body, data = copy.deepcopy(_everything()[0]), _everything()[1]
    edit(body)
    return rejected(sealed(sample.told(body), sample.KEY), transcript=masked.signed_rounds(), ledgers=data)


def claimed(body: Body, claim_id: str) -> Body:
    return next(claim for claim in body["claims"] if claim["id"] == claim_id)


LIES: dict[str, tuple[Callable[[Body], object], str]] = {
    "epsilon understated": (
        lambda b: claimed(b, "privacy.epsilon")["sites"][0].update(epsilon="0.5000"),
        "privacy.epsilon",
    ),
    "epsilon rounded down": (
        lambda b: claimed(b, "privacy.epsilon")["sites"][0].update(epsilon="0.9645"),
        "privacy.epsilon",
    ),
    "an event deleted": (
        lambda b: claimed(b, "privacy.epsilon")["sites"][0]["events"][0].update(count=15),
        "privacy.epsilon",
    ),
    "noise that was not drawn": (
        lambda b: claimed(b, "privacy.epsilon")["sites"][0]["events"][0].update(noise_multiplier="20"),
        "privacy.epsilon",
    ),
    "fixed batches called Poisson": (
        lambda b: claimed(b, "privacy.epsilon")["sites"][0]["events"][0].update(
            sampling={"type": "poisson", "rate": "0.1"}
        ),
        "privacy.epsilon",
    ),
    "another unit": (lambda b: claimed(b, "privacy.epsilon").update(unit="patient"), "ledger.chain"),
    "another relation": (
        lambda b: claimed(b, "privacy.epsilon").update(relation="add_or_remove_one"),
        "not a valid privacy-audit-v1",
    ),
    "a larger delta": (lambda b: claimed(b, "privacy.epsilon").update(delta="0.1"), "privacy.epsilon"),
    "floating point called exact": (
        lambda b: claimed(b, "privacy.epsilon")["sites"][0]["events"][0].pop("arithmetic"),
        "privacy.epsilon",
    ),
    "an order chosen afterwards": (
        lambda b: claimed(b, "privacy.epsilon.distributed")["sites"][0]["lifetime"].update(order=2),
        "privacy.epsilon.distributed",
    ),
    "more shares counted on than were sure": (
        lambda b: [
            row.update(counted=row["shares"] == 3) for row in claimed(b, "privacy.epsilon.distributed")["hypothetical"]
        ],
        "privacy.epsilon.distributed",
    ),
    "a round told twice": (lambda b: b["rounds"].append({**b["rounds"][-1], "round": 14}), "report.consistency"),
    "a round replayed from another attempt": (
        lambda b: claimed(b, "secagg.rounds")["attempts"][2].update(
            claimed(b, "secagg.rounds")["attempts"][1], round=3
        ),
        "secagg.rounds",
    ),
    "survivor lists that overlap": (
        lambda b: claimed(b, "secagg.rounds")["attempts"][0]["survivors"].append("va"),
        "secagg.rounds",
    ),
    "a sum over too few": (
        lambda b: (
            claimed(b, "secagg.rounds")["attempts"][0].update(survivors=["cleveland", "hungary"]),
            b["rounds"][0].update(answered=["cleveland", "hungary"]),
        ),
        "report.consistency",
    ),
    "one site shown another model": (
        lambda b: claimed(b, "secagg.rounds")["attempts"][0].update(model_root="1" * 64),
        "secagg.rounds",
    ),
    "the transcript of another run": (lambda b: b["run"].update(id="20261122-140305-43"), "ledger.chain"),
    "ledgers not told": (lambda b: b["claims"].remove(claimed(b, "ledger.chain")), "report.consistency"),
    "conformance not told": (lambda b: b["claims"].remove(claimed(b, "conformance.release")), "report.consistency"),
    "a ledger rolled back": (
        lambda b: claimed(b, "ledger.chain")["ledgers"][0].update(entries=2, debits=1),
        "ledger.chain",
    ),
    "a site that paid but did not answer": (
        lambda b: b["rounds"][8].update(
            answered=["cleveland", "hungary", "switzerland"], missing=[{"site": "va", "reason": "no answer"}]
        ),
        "secagg.rounds",
    ),
    "a site that answered left out": (lambda b: b["rounds"][8]["answered"].remove("va"), "report.consistency"),
    "a site that is none": (
        lambda b: b["utility"]["sites"][0].update(id="st-elsewhere"),
        "report.consistency",
    ),
    "an accuracy that no count gives": (
        lambda b: b["utility"]["sites"][0].update(together="0.8078"),
        "report.consistency",
    ),
    "an interval of more rows": (lambda b: b["utility"]["sites"][0].update(n_test=208), "report.consistency"),
    "left out, and trained all the same": (
        lambda b: b["utility"]["left_out"][0]["trained_by"].append("va"),
        "report.consistency",
    ),
    "other test rows for who is left out": (
        lambda b: b["utility"]["left_out"][0].update(n_test=46),
        "report.consistency",
    ),
    "a mean of scores that no site has": (
        lambda b: [site.update(pooled=None) for site in b["utility"]["sites"]],
        "report.consistency",
    ),
    "a mean that counts a site without a score": (
        lambda b: b["utility"]["sites"][0].update(pooled=None),
        "report.consistency",
    ),
    "an interval made narrower": (
        lambda b: b["utility"]["sites"][0].update(interval=["0.8000", "0.8200"]),
        "report.consistency",
    ),
    "the weakest number of shares hidden": (
        lambda b: claimed(b, "privacy.epsilon.distributed")["hypothetical"].pop(0),
        "privacy.epsilon.distributed",
    ),
    "unmasked arrays": (lambda b: b["egress"][0].update(unmasked_arrays=1), "secagg.egress"),
    "nothing left a site": (lambda b: b["egress"][0].update(messages=0, bytes=0), "report.consistency"),
    "another model": (lambda b: claimed(b, "model.digest").update(sha256="1" * 64), "model.digest"),
    "a protection that was off": (lambda b: b["protections"].update(tls=True), "report.consistency"),
    "finished before it began": (lambda b: b["run"].update(finished="2026-11-21T00:00:00Z"), "report.consistency"),
}


def test_everything_is_accepted_as_it_is() -> None:
    assert told(lambda _body: None) == ""


@pytest.mark.parametrize(("edit", "by"), LIES.values(), ids=LIES.keys())
def test_a_lie_by_the_signer_is_found(edit: Callable[[Body], object], by: str) -> None:
    why = told(edit)
    assert is_reason(why)
    assert why.startswith(by), why


def test_a_transcript_of_another_run_is_found_without_ledgers() -> None:
    body = masked.predicate()
    body["run"]["id"] = "20261122-140305-43"
    why = rejected(sealed(body, sample.KEY), transcript=masked.signed_rounds())
    assert why == "secagg.rounds: the sites signed the sums of another run than the report's"


def test_a_round_that_never_was_is_found() -> None:
    body = masked.predicate()
    body["rounds"].pop()
    body["run"].update(rounds=14, completed=14)
    claimed(body, "secagg.rounds")["attempts"].pop()
    why = rejected(sealed(body, sample.KEY), transcript=masked.signed_rounds())
    assert why == "secagg.rounds: 'attempts' is not what the transcript proves"


# What is left to a signer who lies: by field, and why no document can show it. Nothing may be added here unseen.

UNSEEN = {
    "tool.version": "what wrote the report is the signer's word",
    "claims": "their order",
    "run.title": "words for people",
    "run.data": "words for people; real sites name the study that they agreed to",
    "run.strategy": "in a simulation nobody but its one program knows what ran; a charter's approval names it",
    "run.seed": "only running it again can show it",
    "model.digest.file": "a name",
    "model.digest.parameters": "stands in the model file, which the digest binds; the verifier does not open it",
    "privacy.epsilon.target_epsilon": "a larger target promises less than was kept",
    "privacy.epsilon.sites": "the order of sites says nothing",
    "privacy.epsilon.sites.clip": "noise is relative to the clip; conformance tests, at the site, see it",
    "privacy.epsilon.sites.epsilon": "rounded up by less than 0.001, to the disadvantage of who says so",
    "privacy.epsilon.sites.epsilon_replace_one": "likewise",
    "privacy.epsilon.sites.epsilon_rdp": "likewise",
    "privacy.epsilon.sites.planned_epsilon": "likewise",
    "conformance.release.sites.tests.n": "of a test that does not go by chance: who tested says how often it looked",
    "conformance.release.sites.tests.statistic": "likewise, what it found within the limit; of chance, the last digits",
    "conformance.release.sites.tests.p_value": "its last digits",
    "conformance.release.sites.controls.fired": "a defect said not to be found leaves the claim unchecked, not failed",
    "utility": "scores are the experimenter's view: they are read from rows that nobody else has",
    "rounds.loss": "likewise",
    "rounds.missing.reason": "the coordinator's word",
    "rounds.answered": "their order; without masks, and of a site that stays away from then on, who answered at all",
    "rounds.missing": "of a site that stays away from then on",
    "rounds.missing.site": "likewise",
    "egress": "their order",
    "egress.messages": "the coordinator's own count; real sites sign theirs",
    "egress.bytes": "likewise",
    "egress.unmasked_arrays": "likewise, where arrays are sent in the clear",
    "not_protected": "their order",
    "assumptions": "likewise",
}


def field_of(body: Body, path: Path) -> str:
    """Returns the name of a field, whatever its place in lists."""
    names = [key for key in path if isinstance(key, str)]
    if path[0] == "claims" and len(path) > 1:
        names[0] = body["claims"][path[1]]["id"]
    return "utility" if names[0] == "utility" else ".".join(names)


@pytest.mark.soak
def test_nothing_but_the_listed_fields_can_be_changed_by_a_signer() -> None:
    body, data = ledgers.with_ledgers(sample.predicate())
    unseen = set()
    for path, value in leaves(body):
        if path[0] == "signer" or (path[0] == "rounds" and len(path) > 1 and path[1] not in {0, 3, 6}):
            continue  # the signer is who signs; and one round is like another
        changed = (with_value(body, path, other) for other in others(value) if other != value)
        if not all(rejected(sealed(one, sample.KEY), ledgers=data) for one in changed):
            unseen.add(field_of(body, path))
    assert unseen <= UNSEEN.keys()
