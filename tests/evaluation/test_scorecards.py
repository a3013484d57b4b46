"""Scorecards: right figures per slice, honest intervals, and pages in which no text does anything."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from foreword.artifact import Digest, PromptFormat
from foreword.errors import DataError
from foreword.evaluation.checks import parse_check
from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.metrics.calibration import Calibration
from foreword.evaluation.metrics.metric import mean_table
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.replay import Replay
from foreword.evaluation.runs.variant import Variant
from foreword.evaluation.scorecards.evaluation import Evaluation, evaluate
from foreword.evaluation.scorecards.headline import Headline, RuleLine, headline_of
from foreword.evaluation.scorecards.html import heat_map, to_html
from foreword.evaluation.scorecards.markdown import to_markdown
from foreword.evaluation.scorecards.pairing import Sampling, difference, value_interval
from foreword.evaluation.scorecards.scorecard import Scorecard, build
from foreword.evaluation.scorecards.slices import ALL, Slice
from foreword.evaluation.scorecards.stored import from_json, to_json
from tests.evaluation.samples import golden, row

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
INCUMBENT = Variant("incumbent", ONE, "engine", "fingerprint")
CANDIDATE = Variant("candidate", TWO, "engine", "fingerprint", PromptFormat("template", "{input}"))
FAST = Sampling(resamples=400)


def evaluation(
    rows: list[GoldenRow], said: Mapping[Variant, Mapping[str, str]], *metrics: str
) -> Evaluation:
    """Variants with their texts by row id, measured."""
    answers = {
        variant.name: {
            key: Answer(text, variant.digest, len(text.split()), 0.5 + number / 100)
            for number, (key, text) in enumerate(texts.items())
        }
        for variant, texts in said.items()
    }
    replay = Replay(golden(*rows), tuple(said), Decoding(), "an engine", answers, 0, 0.0)
    return evaluate(replay, suite(metrics or None))


def planted() -> Scorecard:
    """40 German rows that both get right; 40 English ones that the candidate gets wrong."""
    right = parse_check({"kind": "exact", "values": ["yes"]})
    rows = [
        row(f"{language}{i}", f"{language} {i}", language=language, cohort=cohort, checks=(right,),
            references=("yes",), tags=("safety",) if i < 3 else ())
        for language, cohort in (("de", "billing"), ("en", "returns"))
        for i in range(40)
    ]  # fmt: skip
    good = {each.id: "yes" for each in rows}
    bad = {each.id: "no" if each.language == "en" else "yes" for each in rows}
    found = evaluation(rows, {INCUMBENT: good, CANDIDATE: bad})
    labels = Digest.of(b"labels")
    known = Calibration("answer_relevancy_4grams", 1, 0.25, 0.8, 0.6, 10, labels)
    return build(found, NOW, sampling=FAST, calibrations=[known])


@pytest.fixture(scope="module")
def card() -> Scorecard:
    return planted()


def test_every_slice_has_its_own_figures(card: Scorecard) -> None:
    assert [part.label for part in card.slices] == [
        "all rows", "billing", "returns", "#safety", "billing · support · de", "returns · support · en",
    ][:4]  # fmt: skip
    returns = Slice(cohort="returns")
    cells = {part: card.cell("candidate", "exact_match", part) for part in (ALL, returns)}
    assert {part: (c.value, c.n) for part, c in cells.items() if c} == {
        ALL: (0.5, 80), returns: (0.0, 40),
    }  # fmt: skip
    lost = card.comparison("candidate", "incumbent", "exact_match", returns)
    kept = card.comparison("candidate", "incumbent", "exact_match", Slice(cohort="billing"))
    assert lost is not None
    assert kept is not None
    assert (lost.difference, kept.difference) == (-1.0, 0.0)
    assert lost.p < 0.01 < kept.p == 1.0
    assert lost.p <= lost.p_adjusted <= 3 * lost.p + 1e-12


def test_slices_are_split_by_all_that_rows_have() -> None:
    rows = [
        row(f"{c}{s}{lang}", f"{c}{s}{lang}", cohort=c, specialty=s, language=lang)
        for c in ("a", "b") for s in ("support", "sales") for lang in ("de", "en")
    ]  # fmt: skip
    found = build(
        evaluation(rows, {INCUMBENT: {r.id: "x" for r in rows}}, "length"), NOW, sampling=FAST
    )
    assert len(found.slices) == 1 + 2 + 2 + 2 + 8
    assert Slice("a", "sales", "de") in found.slices
    assert found.comparisons == ()
    assert headline_of(found).says == "8 rows, nothing to compare with."


def test_rows_that_all_agree_are_no_certainty(card: Scorecard) -> None:
    """0 of 40 wrong: up to 8.8 % of the others may be (Clopper and Pearson)."""
    cell = card.cell("incumbent", "exact_match", Slice(cohort="billing"))
    kept = card.comparison("candidate", "incumbent", "exact_match", Slice(cohort="billing"))
    assert cell is not None
    assert kept is not None
    room = 1 - 0.025 ** (1 / 40)
    assert room == pytest.approx(0.0881, abs=1e-4)
    assert (cell.low, cell.high) == (pytest.approx(1 - room), 1.0)
    assert (kept.low, kept.high) == (pytest.approx(-room), pytest.approx(room))


def test_intervals_cover_and_planted_differences_are_found() -> None:
    draw = np.random.default_rng(0)
    covered = found = false = 0
    for seed in range(100):
        both = draw.random(120)
        tables = [
            mean_table({str(i): float(b < p) for i, b in enumerate(both)}) for p in (0.8, 0.6, 0.8)
        ]
        assert all(tables)
        sampling = Sampling(resamples=300, seed=seed)
        value = value_interval(tables[0], sampling, share=True)  # type: ignore[arg-type]
        covered += value.low <= 0.8 <= value.high
        found += difference(tables[0], tables[1], sampling).p <= 0.05  # type: ignore[arg-type]
        shuffled = draw.random(120)
        other = mean_table({str(i): float(b < 0.8) for i, b in enumerate(shuffled)})
        assert other is not None
        false += difference(tables[0], other, sampling).p <= 0.05  # type: ignore[arg-type]
    assert covered >= 88
    assert found == 100
    assert false <= 12


def test_a_metric_that_is_no_mean_is_paired_and_permuted() -> None:
    texts = [f"the {a} {b} sat on the {c} mat" for a in "abcd" for b in "efg" for c in "hi"]
    rows = [row(str(i), f"q{i}", references=(text,)) for i, text in enumerate(texts)]
    same = {str(i): text for i, text in enumerate(texts)}
    worse = {str(i): text.replace("mat", "floor then") for i, text in enumerate(texts)}
    found = build(evaluation(rows, {INCUMBENT: same, CANDIDATE: worse}, "bleu"), NOW, sampling=FAST)
    bleu = found.comparison("candidate", "incumbent", "bleu")
    assert bleu is not None
    assert bleu.high < 0
    assert bleu.p < 0.01
    equal = build(evaluation(rows, {INCUMBENT: same, CANDIDATE: same}, "bleu"), NOW, sampling=FAST)
    assert equal.comparisons[0].p == 1.0


def test_the_same_run_gives_the_same_scorecard() -> None:
    assert to_json(planted()) == to_json(planted())


def test_wins_and_losses_are_the_largest_with_both_texts() -> None:
    check = parse_check({"kind": "contains", "values": ["a", "b", "c", "d"]})
    rows = [row(str(i), f"q{i}", checks=(check,), references=("abcd",)) for i in range(4)]
    before = {"0": "a", "1": "ab", "2": "abcd", "3": "abc"}
    after = {"0": "abcd", "1": "abc", "2": "a", "3": "abc"}
    found = build(evaluation(rows, {INCUMBENT: before, CANDIDATE: after}), NOW, sampling=FAST)
    (examples,) = found.examples
    assert examples.metric == "check_score"
    assert [(e.row, e.change) for e in examples.wins] == [("0", 0.75), ("1", 0.25)]
    assert [(e.row, e.candidate, e.against) for e in examples.losses] == [("2", "a", "abcd")]


def test_the_headline_says_which_way_it_went(card: Scorecard) -> None:
    found = headline_of(card)
    assert found.outcome == "none"
    assert found.says.startswith("candidate is worse than incumbent in task_completion: -0.500 [")


def test_a_stored_scorecard_is_the_scorecard(card: Scorecard) -> None:
    assert from_json(to_json(card)) == card


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"foreword.scorecard/1"', '"foreword.scorecard/2"'), ('"rows": 80', '"rows": "80"'),
        ('"engine"', '"motor"'), ('"confidence": 0.95', '"confidence": NaN'),
        ('"set_digest": "sha256:', '"set_digest": "md5:'), ("{", "["),
        ('"better": "higher"', '"better": "up"'),
    ],
)  # fmt: skip
def test_something_else_is_refused(card: Scorecard, old: str, new: str) -> None:
    text = to_json(card)
    assert old in text
    with pytest.raises(DataError, match="expected a scorecard written by") as caught:
        from_json(text.replace(old, new, 1))
    assert caught.value.code == "scorecard.format"


ATTACKS = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</style></p><svg onload=document.title='owned'>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:document.title='owned'",
    "a | b\n# heading [link](https://example.org) `code` ~~x~~ ![i](x) &amp; @team",
    "\u202etxt.exe\u202c\x1b[31m\x00\u200b",
)
RULES = (
    RuleLine("task_completion at least 0.8", "acme/support, all rows", "fail", "0.500", "0.39 to 0.61",
             "0.800", "80", "0.99"),
    RuleLine(ATTACKS[0], ATTACKS[5], "insufficient"),
    RuleLine("no worse", "returns", "pass"),
)  # fmt: skip
VERDICT = Headline(
    "fail", f"acme/support 1.2.0: fail {ATTACKS[0]}", (ATTACKS[1], "half \ud800"), RULES
)


@pytest.fixture(scope="module")
def hostile() -> Scorecard:
    """Inputs, answers, references, cohorts, variants' names and the engine's all try something."""
    rows = [
        row(str(i), attack, references=(attack,), cohort=re.sub(r"[\s\x00-\x1f]", "-", attack)[:70])
        for i, attack in enumerate(ATTACKS)
    ]
    odd = Variant(ATTACKS[1], ONE, ATTACKS[0], ATTACKS[2])
    found = evaluation(
        rows,
        {odd: {r.id: ATTACKS[int(r.id)] for r in rows}, CANDIDATE: {r.id: ATTACKS[-2] for r in rows}},
    )  # fmt: skip
    return build(found, NOW, sampling=FAST)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing_and_texts_are_only_texts(hostile: Scorecard) -> None:
    page = Page(to_html(hostile, VERDICT))
    assert not {"script", "img", "svg", "iframe", "link", "object", "a"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {n for n in names if n.startswith("on")} | ({"src", "href"} & names)
    assert "url(" not in to_html(hostile)
    assert "@import" not in to_html(hostile)
    assert ATTACKS[0] in page.text
    assert ATTACKS[3] in page.text
    assert "\u202e" not in page.text
    assert "[U+202E]txt.exe[U+202C][U+001B][31m[U+0000][U+200B]" in page.text
    assert "half [U+D800]" in page.text
    assert "not calibrated" in page.text
    to_html(hostile, VERDICT).encode("utf-8")


def test_the_page_has_the_verdict_on_top_then_every_part(card: Scorecard) -> None:
    text = Page(to_html(card, VERDICT)).text
    parts = [
        "Fail", "All 3 rules", "not enough evidence", "All rows", "candidate minus incumbent, by slice",
        "where they differ most, by check_score", "Biggest losses", "Latency by prefix",
        "What was judged", str(TWO), "What the metrics are", "agrees with people on 80 % of 10",
        "meteor",
    ]  # fmt: skip
    places = [text.index(part, text.index("Fail")) for part in parts]
    assert places[:11] == sorted(places[:11])
    assert "No gate was asked" in Page(to_html(card)).text


def test_the_heat_map_shows_which_way_how_far_and_whether_it_stands(card: Scorecard) -> None:
    found = heat_map(card, "candidate", "incumbent")
    column = found.metrics.index("exact_match")
    tiles = {part.label: (n, tiles[column]) for part, n, tiles in found.rows}
    n, lost = tiles["returns"]
    assert lost is not None
    assert (n, lost.text, lost.side, lost.strength, lost.stands, lost.few) == (
        40, "-1.000", "bad", 100, True, False,
    )  # fmt: skip
    assert "0.000 against 1.000" in lost.title
    _, even = tiles["billing"]
    _, few = tiles["#safety"]
    assert even is not None
    assert few is not None
    assert (even.side, even.strength, even.stands) == ("even", 0, False)
    assert few.few
    assert "empty" in found.equal
    assert "empty" not in found.metrics
    lower = found.rows[0][2][found.metrics.index("same_answer")]
    assert lower is not None
    assert lower.side == "good"  # the candidate says two things, the incumbent one


def test_no_text_can_start_markup_in_markdown(hostile: Scorecard) -> None:
    text = to_markdown(hostile, VERDICT)
    lines = text.splitlines()
    assert lines[0].startswith("# FAIL: acme/support 1.2.0: fail")
    headings = [line for line in lines if line.startswith("#")]
    assert len(headings) == 1 + len(["values", "differences", "losses"])
    unescaped = re.compile(r"(?<!\\)(<|\[|~|&)|(?<![\\\w])@")
    assert not [line for line in lines if unescaped.search(line)]
    widths = []
    for line in lines:
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(set(widths)) <= 1
            widths = []
    assert "\x1b" not in text
    text.encode("utf-8")


def test_markdown_lists_what_stands(card: Scorecard) -> None:
    text = to_markdown(card)
    assert "| returns | exact\\_match | \\-1.000 |".replace("\\-1", "-1") in text
    assert "| billing | exact" not in text
    assert "(proxy, agrees with people on 80 % of 10\\)" in text.replace("\\(", "(")
    assert json.loads(to_json(card))["rows"] == 80


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def chromium(page: Path, *arguments: str) -> str:
    """What a headless Chromium prints for a page."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", "--no-first-run", f"--user-data-dir={page.parent / 'profile'}",
        "--window-size=1280,2400", *arguments, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def corner(png: Path) -> tuple[int, ...]:
    """Red, green and blue of the first pixel: it has no neighbours, so no filter changes it."""
    data, place, packed = png.read_bytes(), 8, b""
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            packed += data[place + 8 : place + 8 + length]
        place += 12 + length
    return tuple(zlib.decompress(packed)[1:4])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_real_browser_runs_nothing_of_it(hostile: Scorecard, tmp_path: Path) -> None:
    """Also without the page's own policy against scripts: the texts are escaped."""
    html = to_html(hostile, VERDICT)
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    assert policy.search(html)
    page = tmp_path / "card.html"
    page.write_text(policy.sub("", html), encoding="utf-8")
    shown = chromium(page, "--dump-dom")
    assert "<title>acme/support 1.0.0: scorecard</title>" in shown
    assert not {"script", "img", "svg"} & set(Page(shown).tags)
    # The same attack runs where it is not escaped, so this can fail.
    page.write_text(policy.sub(ATTACKS[0], html), encoding="utf-8")
    assert "<title>owned</title>" in chromium(page, "--dump-dom")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_real_browser_draws_it_light_and_dark(card: Scorecard, tmp_path: Path) -> None:
    page = tmp_path / "card.html"
    page.write_text(to_html(card, VERDICT), encoding="utf-8")
    light, dark = tmp_path / "light.png", tmp_path / "dark.png"
    chromium(page, f"--screenshot={light}")
    chromium(page, f"--screenshot={dark}", "--blink-settings=preferredColorScheme=0")
    assert corner(light) == (0xFF, 0xFF, 0xFF)
    assert corner(dark) == (0x12, 0x16, 0x1D)
