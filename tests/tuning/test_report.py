"""The report: one page that opens offline and trusts nothing it shows."""

from __future__ import annotations

import re

from foreword.tuning.report import ReportSample, RunReport, render_report

EVIL = "</svg></td><script>alert('x')</script>&\" onload=\"y"


def report(**changes: object) -> RunReport:
    given: dict[str, object] = {
        "title": EVIL,
        "verdict": EVIL,
        "warnings": [EVIL],
        "facts": {EVIL: EVIL},
        "settings": {EVIL: EVIL},
        "loss": [(float(i), 3.0 - i / 10) for i in range(1, 21)],
        "held_out": [(10.0, 2.5), (20.0, 1.5)],
        "frozen": 2.7,
        "lr": [(1.0, 0.1), (2.0, 0.0)],
        "grad_norm": [(1.0, 1.0)],
        "attention": {EVIL: [0.2, 0.7]},
        "samples": [ReportSample(EVIL, EVIL, EVIL, EVIL)],
    }
    return RunReport(**{**given, **changes})  # type: ignore[arg-type]


def test_nothing_from_outside_becomes_markup() -> None:
    page = render_report(report())
    assert "<script" not in page
    assert "alert(&#39;x&#39;)" in page
    assert not re.search(r'<[^>]* onload="', page)


def test_nothing_is_loaded_from_anywhere() -> None:
    page = render_report(report(title="t"))
    assert not re.search(r"https?://|src=|@import|url\(", page)


def test_every_curve_and_bar_is_drawn() -> None:
    page = render_report(report())
    assert page.count("<polyline") == 4
    assert page.count('class="bar') == 2
    assert page.count('class="bar over"') == 1
    assert "held-out at 20: 1.5" in page
    assert ">frozen</text>" in page


def test_a_run_without_points_still_has_a_report() -> None:
    page = render_report(
        report(loss=[], held_out=[], lr=[], grad_norm=[], attention={}, samples=[])
    )
    assert "no points were logged" in page
