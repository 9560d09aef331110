"""The page: what it must say, that it fetches and runs nothing, that hostile names stay text, that it can be read."""

import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from privacy.audit import charts, envelope, page, words
from privacy.audit.stylesheet import CSS
from privacy.errors import ConfigError
from tests.privacy.audit import sample

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
    first_screen = private[: private.index(b"What was on")]
    text = Document(first_screen).text
    for phrase in (
        "486 records at 4 sites",
        "The unit is one record",
        "the coordinator, the other sites",
        "A 50 % suspicion that a given person's record was in the training set rises to at most about 72 %",
        "ε ≤ 0.9646 at δ = 0.001",
        "replace_special",
        "ε ≤ 2.2186",
        "every record in every step",
        "PLD; by RDP, a looser method: ε ≤ 1.1098",
        "asserted",
        *sample.predicate()["not_protected"],
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
    assert "ε" not in text
    assert "suspicion" not in text


def test_every_figure_of_the_report_stands_in_a_table(private: bytes) -> None:
    text = Document(private).text
    assert "cleveland 199 104 78.8 % 59.6 % 81.7 % 80.8 % 82.7 % 72.1–87.2 %" in text
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
        rounds=[{"round": 1, "attempts": 3, "answered": [], "missing": [], "skipped": True, "loss": None}],
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
    ("epsilon", "said"), [(0, "50 %"), (0.1, "52 %"), (1, "73 %"), (3, "95 %"), (8, "99.97 %"), (50, "nearly 100 %")]
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
        "import sys; from privacy.audit import page; sys.stdout.buffer.write(page.render(sys.stdin.buffer.read()))"
    )
    again = subprocess.run(
        [sys.executable, "-c", program],
        input=sample.signed(),
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
    )
    assert again.stdout == private


@pytest.mark.parametrize("which", ["private", "plain"])
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
    envelope.check_signature(envelope.decode(inside), sample.KEY.public_key)


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


@pytest.mark.parametrize("which", ["private", "plain"])
def test_every_chart_speaks(which: str, request: pytest.FixtureRequest) -> None:
    document = Document(request.getfixturevalue(which))
    drawings = [svg for svg in document.named("svg") if svg.get("class") == "chart"]
    ids = {attributes["id"] for tag, attributes in document.elements if tag in {"title", "desc"} and "id" in attributes}
    assert len(drawings) == (4 if which == "private" else 2)
    for svg in drawings:
        assert svg["role"] == "img"
        assert set((svg["aria-labelledby"] or "").split()) <= ids
    assert document.named("table")
    assert all(cell["scope"] in {"col", "row"} for cell in document.named("th"))
    assert len(document.named("caption")) == len(document.named("table"))


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
    for text, ground in (("ink", "warn-wash"), ("warn", "warn-wash"), ("ink", "wash"), ("card", "accent")):
        assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)


# Charts on their own


def test_ticks_are_round_and_cover_the_values() -> None:
    assert charts._ticks(0.5962, 0.9650, least=0.1) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert charts._ticks(0.8, 0.8, least=0.1)[0] <= 0.8 <= charts._ticks(0.8, 0.8, least=0.1)[-1]
    for low, high in ((0.0, 0.0), (0.31, 0.952), (1e-9, 2e-9), (1e17, 1.1e17), (0.0, 1.0)):
        ticks = charts._ticks(low, high, least=0.01)
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
    data = page.render(sample.signed(body))
    assert data.count(b'class="dot"') == 600
    assert "1 to 1200 1 4: cleveland" in Document(data).text
