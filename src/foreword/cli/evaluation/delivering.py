"""Where scorecards and verdicts go: one format to stdout, all of them into a directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.cli.evaluation.options import Format
from foreword.cli.output import errors, write
from foreword.errors import StorageError, UsageError

if TYPE_CHECKING:
    from foreword.evaluation.gates.verdict import Verdict
    from foreword.evaluation.scorecards.headline import Headline
    from foreword.evaluation.scorecards.scorecard import Scorecard


def deliver(
    cards: Sequence[Scorecard],
    shown: Format,
    out: Path | None,
    verdict: Verdict | None = None,
) -> None:
    """Write everything to `out`, if it is given, and print one format."""
    if out is not None:
        _write_all(cards, out, verdict)
    if shown == "html" and len(cards) > 1 and out is None:
        raise UsageError(
            "one page shows one golden set; give --out for several", code="evaluation.format"
        )
    if shown == "html" and out is not None:
        return
    write(_text(cards, shown, verdict))


def _text(cards: Sequence[Scorecard], shown: Format, verdict: Verdict | None) -> str:
    from foreword.evaluation.scorecards.html import to_html
    from foreword.evaluation.scorecards.markdown import to_markdown
    from foreword.evaluation.scorecards.stored import to_json

    headline = verdict.headline() if verdict else None
    if shown == "html":
        return to_html(cards[0], headline)
    if shown == "json":
        value: dict[str, Any] = {"verdict": verdict.to_value()} if verdict else {}
        value["scorecards"] = [json.loads(to_json(card)) for card in cards]
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    if verdict:
        return verdict.to_markdown()
    return "\n".join(to_markdown(card) for card in cards)


def _write_all(cards: Sequence[Scorecard], out: Path, verdict: Verdict | None) -> None:
    from foreword.evaluation.scorecards.html import to_html
    from foreword.evaluation.scorecards.markdown import to_markdown
    from foreword.evaluation.scorecards.stored import to_json

    headline: Headline | None = verdict.headline() if verdict else None
    files: dict[str, str] = {}
    for card in cards:
        name = card.golden.name.replace("/", "-")
        files[f"{name}.scorecard.html"] = to_html(card, headline)
        files[f"{name}.scorecard.md"] = to_markdown(card, headline)
        files[f"{name}.scorecard.json"] = to_json(card)
    if verdict:
        files |= {"verdict.json": verdict.to_json(), "verdict.md": verdict.to_markdown()}
    write_files(out, files)


def write_files(out: Path, files: dict[str, str]) -> None:
    """Each file whole or not at all; what is there is replaced.

    Raises:
        StorageError: the disk refused.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            draft = out / f".{name}.tmp"
            draft.write_text(text, encoding="utf-8")
            draft.replace(out / name)
    except OSError as e:
        raise StorageError(
            f"{out} could not be written ({e.strerror})", code="storage.write"
        ) from e
    errors.print(f"{', '.join(files)} written to {out}", markup=False, soft_wrap=True)
