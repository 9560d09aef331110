"""The page: what it must say, that it fetches and runs nothing, that hostile names stay text, that it can be read."""

import math
import re
import subprocess
import sys
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from privacy.audit import envelope, words
from privacy.audit.html import charts, drawing, page
from privacy.audit.html.stylesheet import CSS
from privacy.dp.accounting import epsilon, round_up
from privacy.dp.events import FULL_BATCH, GaussianEvent, Relation
from privacy.errors import ConfigError
from tests.privacy.audit import masked, promises, sample

ZERO_OUT = Relation.REPLACE_SPECIAL
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Document(HTMLParser):
    """Collects elements and text, and notes every tag that is closed out of turn."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(data.decode())
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def private() -> bytes:
    return page.render(sample.signed())


@pytest.fixture(scope="module")
def plain() -> bytes:
    return page.render(sample.signed(sample.plain_predicate()))


@pytest.fixture(scope="module")
def summed() -> bytes:
    return page.render(sample.signed(masked.predicate(private=True)))


@pytest.fixture(scope="module")
def promised() -> bytes:
    return page.render(promises.signed())


@pytest.fixture(scope="module")
def audited() -> bytes:
    return page.render(sample.audited())


def drawn(**changes: Any) -> Document:
    body = sample.predicate()
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = body
        for key in parents:
            target = target[key]
        target[last] = value
    return Document(page.render(sample.forged(body)))


# What it says


def test_the_first_screen_answers_who_from_whom_and_how_strongly(private: bytes) -> None:
    text = first_screen(private)
    for phrase in (
        "486 records at 4 sites",
        "The unit is one record",
        "the coordinator, the other sites",
        "A 50 % suspicion that a given person's record was in the training set rises to at most about 73 %",
        "ε ≤ 0.9646 at δ = 0.001",
        "No attack was measured for this report.",
        "What is not protected",
        "How to check collegium verify report.html --trust keys.txt",
        "Signed by the run, with a key made for it.",
        *sample.predicate()["not_protected"],
    ):
        assert phrase in text, phrase


def test_what_the_number_rests_on_is_told_further_down(private: bytes) -> None:
    text = section(private, "spent-local")
    for phrase in (
        "replace_special",
        "ε ≤ 2.2186",
        "every record in every step",
        "PLD; by RDP, a looser method: ε ≤ 1.1098",
        "No budget was set.",
        "asserted",
    ):
        assert phrase in text, phrase


def test_what_was_off_is_said_in_words(private: bytes) -> None:
    text = Document(private).text
    assert re.findall(r"\b(ON|OFF) ([A-Z][a-z]+)", text) == [
        ("ON", "Record"),
        ("OFF", "Secure"),
        ("OFF", "Noise"),
        ("OFF", "Site"),
        ("OFF", "Encrypted"),
    ]
    assert "The coordinator saw each site's update by itself." in text


def test_without_privacy_the_page_says_so_first_and_names_no_epsilon(plain: bytes) -> None:
    text = Document(plain).text
    assert text.index("No differential privacy was applied.") < text.index("Who is protected")
    assert "ε ≤" not in text
    assert "suspicion" not in text


def test_every_figure_of_the_report_stands_in_a_table(private: bytes) -> None:
    text = Document(private).text
    assert "cleveland 199 104 78.8 % 59.6 % 81.7 % 80.8 % 82.7 % 72.2–87.2 %" in text
    assert "Mean of sites 81.4 % 61.2 % 82.5 % 81.2 % 79.5 %" in text
    assert "switzerland 30 1 10.6156 all records 15 0.9282 1.0000 2.1332 1.0688" in text
    assert "4 1 3: cleveland, hungary, va switzerland: no answer within 10 s completed" in text
    assert "8 to 15 1 4: cleveland, hungary, switzerland, va – completed" in text
    assert "va 16 4.98 kB 4 976 16" in text
    assert (
        "If va stays out, the model of cleveland, hungary, switzerland scores 73.3 % on the 45 test records of va"
        in text
    )
    assert "always the same answer for everyone scores 63.7 %" in text
    assert "Too few to tell models apart: switzerland (16)" in text


def test_the_sums_that_were_opened_are_told(summed: bytes) -> None:
    text = Document(summed).text
    claim = masked.predicate()["claims"][-2]
    for phrase in (
        "The server sees sums over at least 3 of 4 sites; in league with 1 of them, sums over 2 or more.",
        "Sums over different survivors can be subtracted.",
        "15 sums, over 2 different sets of sites",
        "Cohort 4: cleveland, hungary, switzerland, va",
        "3 sites are needed to open a sum; it holds at least 3 sites, and every part of the model at least 3; 1 may be",
        "FSA1",
        claim["roster"],
        claim["transcript_sha256"],
        "1 to 3 1 4: cleveland, hungary, switzerland, va sum opened",
        "4 1 3: cleveland, hungary, va sum opened",
        "7 1 none nothing opened, says the coordinator: U1 has fewer than 3 sites",
        "7 2 4: cleveland, hungary, switzerland, va sum opened",
        f"7.2: {claim['attempts'][7]['model_root'][:16]}",
        "Whose keys these are, that they trained on that model, and that there was no other attempt, no signature",
        "transcript/secagg.jsonl by every signature of the sites",
        "secagg.rounds proved By the signatures in transcript/secagg.jsonl",
        "secagg.egress asserted The coordinator received no unmasked array from any site",
    ):
        assert phrase in text, phrase


def section(data: bytes, heading: str) -> str:
    """What one section of a page says, by the id of its heading."""
    _, _, rest = data.partition(f'<section aria-labelledby="{heading}">'.encode())
    return Document(rest[: rest.index(b"</section>")]).text


def first_screen(data: bytes) -> str:
    return Document(data[: data.index(b"What was on")]).text


FIRST = {
    "local": (
        "Noise at each site, in every step. Each single record",
        "486 records at 4 sites",
        "The unit is one record",
        "Everyone outside the site that holds the record",
        "ε ≤ 0.9646 at δ = 0.001",
    ),
    "central": (
        "Noise at the server, on every opened sum. Each site as a whole, with everything that it put in: 4 sites.",
        "Not the server: it adds the noise itself",
        "A 50 % suspicion that a given site's data went into the model rises to at most about 73 %",
        "ε ≤ 0.9282 at δ = 0.001 for each site, against whoever receives the model, not the server.",
    ),
    "distributed": (
        "Shares of noise from every site, under the masks. Each site as a whole",
        "The unit is one site",
        "A site knows its own share",
        "against whoever sees sums that hold 2 or more shares of noise unknown to them",
    ),
}
DETAILS = {
    "local": (
        "Gaussian on a public grid, drawn as exact integers",
        "PLD; by RDP, a looser method: ε ≤ 1.1098",
        "a Gaussian filter",
        "hospitals/cleveland 1.4869 of 2 at δ = 0.001",
        "proved as far as arithmetic goes",
    ),
    "central": (
        "the same data with one site blanked out; the number of sites is public",
        "every site in every round",
        "No budget was set.",
    ),
    "distributed": (
        "Skellam, drawn as exact integers",
        "Accountant RDP Over the rounds",
        "a Rényi filter of order",
    ),
}


@pytest.mark.parametrize("placement", FIRST)
def test_each_promise_says_whom_it_protects_from_whom_and_how(promised: bytes, placement: str) -> None:
    for where, phrases in ((first_screen(promised), FIRST), (section(promised, f"spent-{placement}"), DETAILS)):
        for phrase in phrases[placement]:
            assert phrase in where, phrase


def test_epsilon_is_drawn_over_the_rounds_and_over_delta(private: bytes) -> None:
    text = section(private, "spent-local")
    sixteen = [GaussianEvent(sample.NOISE, FULL_BATCH, 16)]
    for delta, said in ((Decimal("0.1"), "10⁻¹"), (Decimal("1e-10"), "10⁻¹⁰")):
        assert f"δ = {said}: ε ≤ {round_up(epsilon(sixteen, delta, ZERO_OUT))}" in text
    # Round 7 took two attempts, so that eight executions were over after it; none of fifteen is left out at the end.
    assert "round 2: ε ≤ 0.2793" in text
    assert f"round 8: ε ≤ {sample.price([GaussianEvent(sample.NOISE, FULL_BATCH, 9)], ZERO_OUT)}" in text
    assert "round 15: ε ≤ 0.9646" in text


def test_promises_are_told_apart_and_never_added(promised: bytes) -> None:
    text = Document(promised).text
    assert "3 promises hold side by side" in text
    assert "their numbers are never added" in text
    assert "promises hold" not in Document(page.render(promises.signed("local"))).text
    for heading in ("What privacy each site spent: noise at each site", "What privacy the server spent: noise at the"):
        assert heading in text


def test_the_shares_that_are_counted_on_stand_beside_the_hypothetical_ones(promised: bytes) -> None:
    text = Document(promised).text
    rows = promises.of(promises.predicate(), "distributed")["hypothetical"]
    told = ["counted on: the claim" if row["counted"] else "hypothetical" for row in rows]
    assert told.count("counted on: the claim") == 1
    assert " ".join(f"{row['shares']} {row['epsilon']} {what}" for row, what in zip(rows, told, strict=True)) in text
    assert "switzerland 0.1 11.9657 all sites 15 0.9302 1.0000 2.0981 0.9302" in text


def test_floating_point_noise_is_asserted_only(private: bytes) -> None:
    text = Document(private).text
    assert "Gaussian on a public grid, drawn in floating point: close to the declared distribution" in text
    assert "floating-point noise is as good as the noise it stands for, is asserted" in text
    body = promises.predicate("local")
    for entry in promises.of(body, "local")["sites"]:
        entry["lifetime"]["events"][0].pop("arithmetic")
    assert "this sum is asserted only" in Document(page.render(sample.forged(body))).text
    assert "this sum is asserted only" not in Document(page.render(promises.signed("local"))).text


def stopped(**lifetime: Any) -> Document:
    body = promises.predicate("local", "central")
    body["run"].update(status="stopped", completed=12)
    body["rounds"] = body["rounds"][:12]
    for entry in promises.of(body, "local")["sites"][:1]:
        entry["lifetime"].update(lifetime)
    return Document(page.render(sample.forged(body)))


def test_what_stopped_the_run_is_said() -> None:
    said = "cleveland: the budget of hospitals/cleveland for one record, ε ≤ 1.5 over all runs, has no room for another"
    text = stopped(budget="1.5").text
    assert "What stopped the run After 12 of 15 rounds the run was stopped before its end by a privacy budget." in text
    assert said in text
    assert "hungary: the budget" not in text
    assert "has no room" not in stopped().text
    assert "What stopped the run" in stopped(budget="9" * 18).text  # a budget that is not computed
    body = promises.predicate("central")
    body["run"].update(status="stopped")
    promises.of(body, "central")["sites"][0]["events"][0]["count"] = 17
    assert "server: the plan of this run, ε ≤ 1, has no room" in Document(page.render(sample.forged(body))).text


def test_a_run_that_came_to_its_end_was_not_stopped(promised: bytes) -> None:
    assert "What stopped the run" not in Document(promised).text


def test_a_run_without_masks_tells_of_no_sums(private: bytes) -> None:
    text = Document(private).text
    assert "Which sums were opened" not in text
    assert "secagg.jsonl" not in text


@pytest.mark.parametrize(
    ("n", "n_c", "floor", "fixed_set", "said"),
    [
        (4, 1, 3, False, "3 of 4 sites; in league with 1 of them, sums over 2 or more. Sums over different survivors"),
        (3, 0, 3, False, "3 of 3 sites; nothing is claimed against a server in league with one of them. Sums over"),
        (10, 3, 7, True, "7 of 10 sites; in league with 3 of them, sums over 4 or more."),
    ],
)
def test_what_the_server_sees_in_words(n: int, n_c: int, floor: int, fixed_set: bool, said: str) -> None:
    text = words.sums_seen(n, n_c, floor, fixed_set=fixed_set)
    assert said in text
    assert ("subtracted" in text) is not fixed_set


def test_a_strange_claim_about_sums_is_still_drawn() -> None:
    body = masked.predicate()
    never: dict[str, Any] = {
        "cohort": None, "survivors": [], "regions": [], "model_root": None, "ctx": None, "aborted": None
    }  # fmt: skip
    body["claims"][-2].update(attempts=[{"round": 1, "attempt": 1, **never}])
    assert "1 1 none sum opened" in Document(page.render(sample.forged(body))).text
    body["claims"][-2]["attempts"][0]["aborted"] = HOSTILE
    document = Document(page.render(sample.forged(body)))
    assert "signed 0 sums" in document.text
    assert "nothing opened, says the coordinator: </script>" in document.text
    assert len(document.named("script")) == 1


def test_the_reader_learns_how_to_check(private: bytes) -> None:
    text = Document(private).text
    assert "collegium verify report.html --trust keys.txt" in text
    assert sample.KEY.keyid in text
    assert sample.MODEL_SHA256 in text
    for claim, kind in (("model.digest", "attested"), ("privacy.epsilon", "asserted")):
        assert f"{claim} {kind}" in text
    for kind, worth in words.KINDS.items():
        assert worth in text, kind


def test_a_strange_run_is_still_drawn() -> None:
    text = drawn(
        rounds=[{"round": 1, "attempts": 3, "answered": [], "missing": [], "skipped": True, "still": [], "loss": None}],
        run__status="interrupted",
        run__completed=0,
        run__skipped=1,
        egress=[],
        utility__sites=[],
        utility__left_out=[],
    ).text
    assert "interrupted before its end" in text
    assert "No scores were computed." in text
    assert "No training loss was recorded" in text
    assert "1 3 none – SKIPPED" in text


@pytest.mark.parametrize(
    ("epsilon", "said"), [(0, "50 %"), (0.1, "53 %"), (1, "74 %"), (3, "96 %"), (8, "99.97 %"), (50, "nearly 100 %")]
)
def test_epsilon_in_words(epsilon: float, said: str) -> None:
    number, text = words.chance(epsilon)
    assert text == said
    assert math.isclose(number, math.exp(epsilon) / (1 + math.exp(epsilon)))


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (4976, "4.98 kB"), (123_456, "123 kB"), (10**9, "1 GB")],
)
def test_sizes(n_bytes: int, text: str) -> None:
    assert words.size(n_bytes) == text


# What it is


def test_the_same_report_draws_the_same_bytes_in_another_process(private: bytes) -> None:
    program = (
        "import sys; from privacy.audit.html import page; sys.stdout.buffer.write(page.render(sys.stdin.buffer.read()))"
    )
    again = subprocess.run(
        [sys.executable, "-c", program],
        input=sample.signed(),
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
    )
    assert again.stdout == private


@pytest.mark.parametrize("which", ["private", "plain", "summed", "promised", "audited"])
def test_the_page_is_well_formed(which: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(which)
    document = Document(data)
    assert data.startswith(b"<!DOCTYPE html>\n<html lang=")
    assert (document.wrong, document.open) == ([], [])
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_nothing_is_fetched_and_nothing_runs(private: bytes) -> None:
    document = Document(private)
    assert document.named("script") == [{"type": "application/json", "id": "envelope"}]
    for tag, attributes in document.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "video", "audio", "a"}
        assert not {name for name in attributes if name.startswith("on") or name in {"src", "href", "style"}}
    assert "url(" not in CSS
    assert "@import" not in CSS
    (policy,) = [meta["content"] for meta in document.named("meta") if "http-equiv" in meta]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_the_envelope_inside_is_the_envelope(private: bytes) -> None:
    _, _, rest = private.partition(page.ENVELOPE_OPEN)
    inside, _, _ = rest.partition(page.ENVELOPE_CLOSE)
    assert inside == sample.signed()
    envelope.check_only_signature(envelope.decode(inside), sample.KEY.public_key, envelope.PAYLOAD_TYPE)


HOSTILE = "</script><script>alert(1)</script><b onclick='x'>\"&{{ 7 * 7 }}{% raw %}"


def test_hostile_names_stay_text() -> None:
    name = HOSTILE[:60]
    body = sample.plain_predicate()
    body["run"].update(id=name, scenario=HOSTILE, title=HOSTILE, data=HOSTILE, strategy=name)
    body["not_protected"] = body["assumptions"] = [HOSTILE]
    body["rounds"][3]["missing"] = [{"site": name, "reason": HOSTILE}]
    for entry in (*body["utility"]["sites"][:1], *body["utility"]["left_out"]):
        entry["id"] = name
    body["utility"]["left_out"][0]["trained_by"] = [name]
    body["egress"][0]["site"] = name
    data = page.render(sample.forged(body))
    document = Document(data)
    assert document.text.count("alert(1)") >= 9
    assert "{{ 7 * 7 }}" in document.text
    assert len(document.named("script")) == 1
    assert not [attributes for _, attributes in document.elements if "onclick" in attributes]
    assert (document.wrong, document.open) == ([], [])


def test_hostile_site_names_stay_text_in_charts() -> None:
    body = sample.predicate()
    for entry in body["claims"][1]["sites"]:
        entry["site"] = entry["site"][:4] + "<script>"
    document = Document(page.render(sample.forged(body)))
    assert len(document.named("script")) == 1
    assert "clev<script>" in document.text


def test_what_is_not_a_report_is_not_drawn() -> None:
    with pytest.raises(ConfigError):
        page.render(b"{}\n")


# Who can read it


@pytest.mark.parametrize(("which", "charts"), [("private", 8), ("plain", 2), ("promised", 15), ("audited", 19)])
def test_every_chart_speaks(which: str, charts: int, request: pytest.FixtureRequest) -> None:
    document = Document(request.getfixturevalue(which))
    drawings = [svg for svg in document.named("svg") if str(svg.get("class")).startswith("chart")]
    ids = {attributes["id"] for tag, attributes in document.elements if tag in {"title", "desc"} and "id" in attributes}
    assert len(drawings) == charts
    for svg in drawings:
        assert svg["role"] == "img"
        assert set((svg["aria-labelledby"] or "").split()) <= ids
    assert document.named("table")
    assert all(cell["scope"] in {"col", "row"} for cell in document.named("th"))
    assert len(document.named("caption")) == len(document.named("table"))


@pytest.mark.parametrize("which", ["private", "plain", "promised", "audited"])
def test_headings_come_in_order_and_scroll_regions_can_be_reached(which: str, request: pytest.FixtureRequest) -> None:
    document = Document(request.getfixturevalue(which))
    levels = [int(tag[1]) for tag, _ in document.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = {attributes.get("id") for _, attributes in document.elements}
    regions = [one for one in document.named("div") if one.get("class") == "wide"]
    assert regions
    for region in regions:
        assert (region["role"], region["tabindex"]) == ("region", "0")
        assert region["aria-labelledby"] in ids


def test_series_differ_in_shape_and_not_only_in_colour() -> None:
    shapes = [re.findall(r' d="([^"]+)"', charts.key(series)) for series in words.SERIES]
    assert len({tuple(shape) for shape in shapes}) == len(words.SERIES)


def palettes() -> dict[str, dict[str, str]]:
    light, dark, printed = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    read = {
        name: dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", block))
        for name, block in (("light", light), ("dark", dark), ("print", printed))
    }
    assert all(len(palette) == 12 for palette in read.values())
    return read


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_formula_is_wcag_s() -> None:
    assert contrast("#000000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_text_and_marks_reach_wcag_aa(name: str) -> None:
    palette = palettes()[name]
    for text in ("ink", "soft", "accent", "warn", "other", "third"):
        for ground in ("paper", "card"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    pairs = (("ink", "warn-wash"), ("soft", "warn-wash"), ("warn", "warn-wash"), ("ink", "wash"), ("card", "accent"))
    for text, ground in pairs:
        assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for mark, ground in (("accent", "wash"), ("accent", "warn-wash"), ("other", "warn-wash"), ("warn", "paper")):
        assert contrast(palette[mark], palette[ground]) >= 3, (mark, ground)


# Charts on their own


def test_ticks_are_round_and_cover_the_values() -> None:
    assert drawing.round_ticks(0.5962, 0.9650, least=0.1) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert drawing.round_ticks(0.8, 0.8, least=0.1)[0] <= 0.8 <= drawing.round_ticks(0.8, 0.8, least=0.1)[-1]
    for low, high in ((0.0, 0.0), (0.31, 0.952), (1e-9, 2e-9), (1e17, 1.1e17), (0.0, 1.0)):
        ticks = drawing.round_ticks(low, high, least=0.01)
        assert 2 <= len(ticks) <= 6
        assert ticks[0] <= low <= high <= ticks[-1]


def test_a_mark_stands_where_its_value_is() -> None:
    row = charts.ScoreRow("va", "45 test records", (charts.Mark("together", 0.7, (0.4, 1.0)),))
    drawing = charts.scores([row], ["together"], percent=True, description="")
    assert re.findall(r'<svg x="([\d.]+)%"', drawing) == ["50.00"]
    assert re.findall(r'class="range" x1="([\d.]+)%" x2="([\d.]+)%"', drawing)[0] == ("1.50", "98.50")


def test_long_runs_and_many_sites_stay_drawable() -> None:
    rows = [charts.ScoreRow(f"s{n}", "", (charts.Mark("together", 0.5),)) for n in range(1000)]
    assert charts.scores(rows, ["together"], percent=True, description="").count("tspan") == 2 * charts.MOST_ROWS
    body = sample.plain_predicate()
    first = body["rounds"][0]
    body["rounds"] = [{**first, "round": number} for number in range(1, 1201)]
    body["run"].update(rounds=1200, completed=1200)
    data = page.render(sample.forged(body))
    assert data.count(b'class="dot"') == 600
    assert "1 to 1200 1 4: cleveland" in Document(data).text
