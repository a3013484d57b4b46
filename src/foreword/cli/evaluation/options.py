"""Options that several verbs that judge have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Literal["md", "json", "html"]

Side = Annotated[
    str,
    typer.Argument(
        metavar="SIDE",
        help="base, an artifact directory, a reference such as tenant/prefix@1.2.3, or URL#MODEL.",
    ),
]
Base = Annotated[
    str | None, typer.Option(help="Base model; needed unless all sides are endpoints.")
]
Golden = Annotated[
    list[Path], typer.Option("--golden", help="JSONL file of a golden set; repeat it.")
]
Policy = Annotated[Path, typer.Option("--policy", help="YAML file of the gate (docs/gates.md).")]
Answers = Annotated[
    Path | None,
    typer.Option(help="Directory where answers are kept, by default FOREWORD_HOME/answers."),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Directory for scorecards and verdict in all formats.")
]
Shown = Annotated[Format, typer.Option("--format", help="What is printed.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Most tokens per answer.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy, which is what repeats.")]
Seed = Annotated[int, typer.Option(min=0, help="For temperatures above 0.")]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", help="Only this metric; repeat it. Default: all.")
]
Allowed = Annotated[
    list[str] | None,
    typer.Option("--allow-check", help="Let a golden set use this function; repeat it."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(help="File with the API key of the endpoints, by default FOREWORD_API_KEY."),
]
Judge = Annotated[
    str | None, typer.Option(help="A model that judges every answer: base, or URL#MODEL.")
]
Neutral = Annotated[
    str | None,
    typer.Option(help="Text file for perplexity on neutral text, or `builtin` for ours."),
]
Encoder = Annotated[
    Path | None, typer.Option(help="Directory of a sentence encoder for answer relevancy.")
]
Labels = Annotated[
    Path | None, typer.Option(help="JSONL of labelled answers, to calibrate the proxies on.")
]


@dataclass(frozen=True)
class Measuring:
    """What is measured beside the answers."""

    metrics: tuple[str, ...] | None = None
    allowed: tuple[str, ...] = ()
    judge: str | None = None
    neutral: str | None = None
    encoder: Path | None = None
    labels: Path | None = None

    @classmethod
    def given(
        cls,
        metrics: list[str] | None,
        allowed: list[str] | None,
        judge: str | None,
        neutral: str | None,
        encoder: Path | None,
        labels: Path | None,
    ) -> Measuring:
        """From the options as they came."""
        only = tuple(metrics) if metrics else None
        return cls(only, tuple(allowed or ()), judge, neutral, encoder, labels)
