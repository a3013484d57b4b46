"""The report of a run: one HTML file that opens offline, with its curves drawn as SVG here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment
from markupsafe import Markup

Curve = Sequence[tuple[float, float]]
"""Points (step, value)."""

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 240, 52, 28, 12


@dataclass(frozen=True)
class ReportSample:
    """One held-out input and its answers without and with the prefix."""

    prompt: str
    target: str
    before: str
    after: str


@dataclass(frozen=True)
class RunReport:
    """Everything the page shows."""

    title: str
    verdict: str
    """One sentence: what the prefix changed on held-out rows."""
    warnings: Sequence[str]
    facts: Mapping[str, str]
    settings: Mapping[str, str]
    loss: Curve
    held_out: Curve
    frozen: float
    """Held-out loss of the frozen model, drawn as a line."""
    lr: Curve
    grad_norm: Curve
    attention: Mapping[str, Sequence[float]]
    """Per site, the share of attention on the prefix, layer by layer, 0..1."""
    samples: Sequence[ReportSample]


def render_report(report: RunReport) -> str:
    """The page as text. Everything from outside is escaped; nothing is loaded from anywhere."""
    environment = Environment(autoescape=True)
    template = environment.from_string(
        files("foreword.tuning").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        report=report,
        loss=_chart(
            {"training": report.loss, "held-out": report.held_out}, level=("frozen", report.frozen)
        ),
        lr=_chart({"learning rate": report.lr}),
        norm=_chart({"gradient norm": report.grad_norm}),
        attention={site: _bars(shares) for site, shares in report.attention.items()},
    )


def _chart(curves: Mapping[str, Curve], level: tuple[str, float] | None = None) -> Markup:
    """A line chart: x is the step, y starts at zero or below the smallest value."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return Markup('<p class="none">no points were logged</p>')
    values = [y for _, y in points] + ([level[1]] if level else [])
    low, high = min(0.0, *values), max(values) * 1.05 or 1.0
    last = max(x for x, _ in points) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + x / last * (_WIDTH - _LEFT - 12)
        up = _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)
        return round(across, 1), round(up, 1)

    parts = [_axes(low, high, last, place(0, low)[1])]
    for number, (name, curve) in enumerate(curves.items()):
        line = " ".join(f"{x},{y}" for x, y in (place(*point) for point in curve))
        title = Markup("<title>{}</title>").format(name)
        parts.append(
            Markup('<polyline class="curve c{}" points="{}">{}</polyline>').format(
                number, line, title
            )
        )
        if len(curve) <= 40:
            parts += [_dot(number, name, x, y, place(x, y)) for x, y in curve]
    if level:
        parts.append(_level(level[0], place(0, level[1])[1]))
    legend = Markup("").join(
        Markup('<span class="key k{}">{}</span>').format(i, name) for i, name in enumerate(curves)
    )
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg><p class="legend">{}</p>').format(
        _WIDTH, _HEIGHT, Markup("").join(parts), legend
    )


def _axes(low: float, high: float, last: float, floor: float) -> Markup:
    parts = []
    for i in range(5):
        value = low + (high - low) * i / 4
        y = round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * i / 4, 1)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _LEFT, _WIDTH - 12, y, y
            )
            + Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{:.3g}</text>').format(
                _LEFT - 6, y + 4, value
            )
        )
    for i in range(5):
        x = round(_LEFT + (_WIDTH - _LEFT - 12) * i / 4, 1)
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{:.0f}</text>').format(
                x, floor + 18, last * i / 4
            )
        )
    return Markup("").join(parts)


def _dot(number: int, name: str, x: float, y: float, at: tuple[float, float]) -> Markup:
    return Markup(
        '<circle class="dot d{}" cx="{}" cy="{}" r="3"><title>{} at {:.0f}: {:.4g}</title></circle>'
    ).format(number, at[0], at[1], name, x, y)


def _level(name: str, y: float) -> Markup:
    return Markup(
        '<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
    ).format(_LEFT, _WIDTH - 12, y, y, _WIDTH - 14, y - 5, name)


def _bars(shares: Sequence[float]) -> Markup:
    """One bar per layer, with a line at one half; a bar above it is marked."""
    height, floor = 130, 108
    step = (_WIDTH - _LEFT - 12) / max(1, len(shares))
    parts = []
    for layer, share in enumerate(shares):
        tall = share * (floor - 8)
        parts.append(
            Markup(
                '<rect class="bar{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>layer {}: {:.1%}</title></rect>"
            ).format(
                " over" if share > 0.5 else "",
                _LEFT + layer * step + 1,
                floor - tall,
                max(1.0, step - 2),
                tall,
                layer,
                share,
            )
        )
    half = floor - 0.5 * (floor - 8)
    parts.append(
        Markup('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, _WIDTH - 12, half, half
        )
    )
    labels = (("100 %", 12.0), ("50 %", half + 4), ("0", float(floor)))
    for text, y in labels:
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 6, y, text
            )
        )
    parts.append(
        Markup('<text class="tick" x="{}" y="{}">layer 0</text>').format(_LEFT, height - 4)
        + Markup('<text class="tick" x="{}" y="{}" text-anchor="end">layer {}</text>').format(
            _WIDTH - 12, height - 4, len(shares) - 1
        )
    )
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(
        _WIDTH, height, Markup("").join(parts)
    )
