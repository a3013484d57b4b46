"""Draws what `bench/serving.py` measured: `docs/benchmarks/serving.svg`, and the page around it.

Four panels: throughput and time to first token, each against the number of requests and against the
number of different adapters among 32 requests. The axes are logarithmic; everybody's lines are in it,
also where they are better. Reads the JSON file and nothing else, so the picture is the file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from markupsafe import Markup
from serving_peers import LORAS

OUT = harness.ROOT / "docs" / "benchmarks"
WIDTH, HEIGHT = 900, 640
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 40, 44
NAMES = {
    "foreword": "Foreword",
    "vllm": "vLLM",
    "vllm_lora": "vLLM, LoRAs",
    "continuous": "continuous batching",
    "generate": "transformers, generate",
    "peft": "PEFT, prefixes",
    "limit": "the machine's limit",
}
STYLE = Markup("""<style>
:root { --ink: #1c2330; --soft: #667085; --paper: #ffffff; --line: #dfe3ea; }
.foreword { --c: #e8590c; } .vllm { --c: #3b5bdb; } .vllm_lora { --c: #3b5bdb; }
.continuous { --c: #2b8a3e; } .generate { --c: #868e96; } .peft { --c: #9c36b5; }
.limit { --c: #c92a2a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #98a2b3; --paper: #12161d; --line: #2c3542; }
  .vllm, .vllm_lora { --c: #7c96ff; } .peft { --c: #da77f2; } .limit { --c: #ff7b7b; }
  .continuous { --c: #69db7c; } .foreword { --c: #ff9f5a; } }
svg { background: var(--paper); font: 12px system-ui, sans-serif; }
text { fill: var(--ink); } .tick, .axis { fill: var(--soft); font-size: 11px; }
.title { font-weight: 600; font-size: 13px; } .grid { stroke: var(--line); }
.curve { fill: none; stroke: var(--c); stroke-width: 1.8; } .foreword.curve { stroke-width: 3; }
.vllm_lora.curve { stroke-dasharray: 6 4; } .limit.curve { stroke-dasharray: 2 4; }
.dot { fill: var(--c); }
</style>""")

Curve = Mapping[int, float]
"""Count -> value."""
Scale = Callable[[float], float]
"""Value -> place on the paper."""


@dataclass(frozen=True)
class Panel:
    """One chart: curves by side, over a count of requests or adapters."""

    title: str
    across: str
    curves: Mapping[str, Curve]

    @property
    def counts(self) -> list[int]:
        return sorted({count for curve in self.curves.values() for count in curve})


def panels(record: Mapping[str, Any]) -> list[Panel]:
    """Two figures against two counts."""
    batches, adapters = record["batches"], record["adapters"]
    alone, among = "requests, no adapters", "different adapters among 32 requests"
    speed, first = "tokens per second", "time to first token, ms"
    return [
        Panel(speed, alone, curves(batches, "tokens_per_second") | {"limit": limit(record)}),
        Panel(first, alone, curves(batches, "first_ms")),
        Panel(speed, among, curves(adapters, "tokens_per_second")),
        Panel(first, among, curves(adapters, "first_ms")),
    ]


def curves(tables: Mapping[str, Any], figure: str) -> dict[str, Curve]:
    """vLLM was started for `LORAS` LoRAs and asked for no more, so its line ends there."""
    sides = dict.fromkeys(side for table in tables.values() for side in table)
    return {
        side: {
            int(count): table[side][figure]
            for count, table in tables.items()
            if side in table and not (side == "vllm_lora" and int(count) > LORAS)
        }
        for side in sides
    }


def limit(record: Mapping[str, Any]) -> Curve:
    """Tokens per second if every step were as short as the machine allows."""
    shares = {int(count): share for count, share in record["share_of_limit"].items()}
    ours = {int(count): table["foreword"] for count, table in record["batches"].items()}
    return {n: 1e3 * n / (shares[n] * ours[n]["step_ms"]) for n in ours}


def draw(record: Mapping[str, Any]) -> str:
    """The picture as SVG text; it loads nothing."""
    wide, tall = WIDTH / 2, (HEIGHT - 56) / 2
    drawn = [
        Markup('<g transform="translate({:.0f},{:.0f})">{}</g>').format(
            wide * (index % 2), tall * (index // 2), Markup("").join(_panel(panel, wide, tall))
        )
        for index, panel in enumerate(panels(record))
    ]
    body = Markup("").join([*drawn, *_legend(record)])
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img">'
        "<title>Serving benchmark</title>{}{}</svg>\n"
    ).format(WIDTH, HEIGHT, STYLE, body)


def _panel(panel: Panel, wide: float, tall: float) -> Iterator[Markup]:
    values = [value for curve in panel.curves.values() for value in curve.values()]
    x = _scale(panel.counts, LEFT, wide - RIGHT - 14)
    y = _scale(values, tall - BOTTOM, TOP + 6)
    yield _text("title", LEFT, 22, "start", panel.title)
    yield _text("axis", (LEFT + wide - RIGHT) / 2, tall - 10, "middle", panel.across)
    for count in panel.counts:
        yield _text("tick", x(count), tall - BOTTOM + 16, "middle", str(count))
    for value in _round_values(min(values), max(values)):
        yield Markup('<line class="grid" x1="{}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            LEFT, wide - RIGHT, y(value), y(value)
        )
        yield _text("tick", LEFT - 6, y(value) + 4, "end", f"{value:g}")
    # Ours comes last, so that nothing lies over it.
    for side in sorted(panel.curves, key=lambda side: side == "foreword"):
        yield from _curve(side, panel.curves[side], x, y)


def _curve(side: str, curve: Curve, x: Scale, y: Scale) -> Iterator[Markup]:
    line = " ".join(f"{x(count):.1f},{y(value):.1f}" for count, value in sorted(curve.items()))
    yield Markup('<polyline class="{} curve" points="{}"/>').format(side, line)
    for count, value in curve.items():
        yield Markup(
            '<circle class="{} dot" cx="{:.1f}" cy="{:.1f}" r="3"><title>{} at {}: {:.4g}</title>'
            "</circle>"
        ).format(side, x(count), y(value), NAMES[side], count, value)


def _legend(record: Mapping[str, Any]) -> Iterator[Markup]:
    sides = [side for side in NAMES if any(side in panel.curves for panel in panels(record))]
    for index, side in enumerate(sides):
        left, top = LEFT + 215 * (index % 4), HEIGHT - 36 + 20 * (index // 4)
        yield Markup('<polyline class="{} curve" points="{},{} {},{}"/>').format(
            side, left, top, left + 24, top
        )
        yield _text("key", left + 30, top + 4, "start", NAMES[side])


def _text(kind: str, x: float, y: float, anchor: str, words: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, words
    )


def _scale(values: Sequence[float], first: float, last: float) -> Scale:
    """Logarithmic, from the smallest value at `first` to the largest at `last`."""
    low, high = math.log(min(values)), math.log(max(values))
    return lambda value: first + (last - first) * (math.log(value) - low) / ((high - low) or 1.0)


def _round_values(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 ... between the two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [value for value in steps if low <= value <= high]


def page(record: Mapping[str, Any]) -> str:
    """The page around the picture: what was claimed, and the figures behind every dot."""
    machine, plan = record["machine"], record["plan"]
    lines = [
        "# Serving, measured", "",
        f"`{record['command']}` on {machine['processor']}, {machine['threads']} threads, commit "
        f"{record['commit']}, {record['date']}; torch {machine['torch']}, transformers "
        f"{machine['transformers']}, PEFT {machine['peft']}, {record['vllm']}.", "",
        f"SmolLM2-135M in float32, prompts of {record['prompt_tokens']} tokens, {plan['tokens']} new "
        "tokens, greedy. All sides were loaded at once and took turns on the same prompts; a ratio is "
        "the median over rounds. `docs/benchmarks/serving.svg` is drawn from the same file.", "",
        "![throughput and time to first token](serving.svg)", "",
        *_table(["claim", "measured", "goal", ""], _claims(record["claims"])),
    ]  # fmt: skip
    for panel in panels(record):
        lines += ["", f"## {panel.title.capitalize()}, by {panel.across}", ""]
        lines += _table(["", *map(str, panel.counts)], _rows(panel))
    return "\n".join(lines) + "\n"


def _claims(claims: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for given in claims:
        claim = harness.Claim(**given)
        sign = "≥" if claim.better == "higher" else "≤"
        measured = f"{claim.value:.3g} {claim.unit}"
        yield [claim.name, measured, f"{sign} {claim.goal:g}", "met" if claim.met else "**missed**"]


def _rows(panel: Panel) -> Iterator[list[str]]:
    for side in NAMES:
        if side in panel.curves:
            curve = panel.curves[side]
            cells = [f"{curve[n]:.4g}" if n in curve else "" for n in panel.counts]
            yield [NAMES[side], *cells]


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> list[str]:
    every = [list(head), ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in every]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path, default=harness.ROOT / "bench/results/serving.json")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write to")
    given = parser.parse_args()
    record = json.loads(given.record.read_text(encoding="utf-8"))
    given.out.mkdir(parents=True, exist_ok=True)
    for name, text in (("serving.svg", draw(record)), ("serving.md", page(record))):
        (given.out / name).write_text(text, encoding="utf-8")
        print(f"written to {given.out / name}")


if __name__ == "__main__":
    main()
