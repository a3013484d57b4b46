"""`foreword generate`: answers from one prefix, several, or the bare model, in one batch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from foreword.cli.output import errors, out, write
from foreword.cli.prefixes import open_prefixes
from foreword.cli.registry.options import Directory, Trust
from foreword.errors import DataError, StorageError, UsageError

if TYPE_CHECKING:
    from foreword.serving.generation import Completion


class _Ask(NamedTuple):
    columns: Mapping[str, str]
    prefix: str | None
    """The prefix that answers, as it was given; None for the bare model."""


def generate(
    base: Annotated[str, typer.Option(help="Base model.")],
    text: Annotated[
        list[str] | None, typer.Argument(help="Inputs, if there is no --input.")
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(
            help="Artifact directory, or a reference such as tenant/prefix@1.2.3; give several to "
            "compare them."
        ),
    ] = None,
    input_: Annotated[
        Path | None,
        typer.Option("--input", help="JSONL; each row has `input` and may name its own `prefix`."),
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="JSONL to write.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per answer.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="For temperatures above 0.")] = 0,
    registry: Directory = None,
    trust: Trust = None,
) -> None:
    """Answer inputs. Rows with different prefixes share one batch of one model."""
    asks = list(_asks(text or [], prefix or [], input_))
    if not asks:
        raise UsageError("nothing to answer: give texts, or --input with a JSONL file")

    # What is named is looked up once, before a model is loaded and whatever happens meanwhile.
    artifacts = open_prefixes(
        (ask.prefix for ask in asks if ask.prefix is not None), registry, trust
    )

    from foreword.cli.output import quiet_libraries
    from foreword.prefix.base_model import load_base
    from foreword.prefix.loading import load_prefix
    from foreword.serving.generation import GenerationRequest
    from foreword.serving.generation import generate as run

    quiet_libraries()
    loaded = load_base(base)
    distinct = {artifact.digest: artifact for artifact in artifacts.values()}
    ready = {digest: load_prefix(loaded, artifact) for digest, artifact in distinct.items()}
    requests = [
        GenerationRequest(
            ask.columns, ready[artifacts[ask.prefix].digest] if ask.prefix is not None else None
        )
        for ask in asks
    ]

    def say(done: int) -> None:
        if len(requests) > done:
            errors.print(f"{done} of {len(requests)} answered")

    answers = run(
        loaded, requests, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
        progress=say,
    )  # fmt: skip
    rows = [_row(ask, answer) for ask, answer in zip(asks, answers, strict=True)]
    _deliver(rows, out_)


def _asks(texts: list[str], prefixes: list[str], file: Path | None) -> Iterator[_Ask]:
    """Every input for every `--prefix`; a row that names its own prefix is asked once."""
    default: list[str | None] = list(prefixes) or [None]
    for text in texts:
        yield from (_Ask({"input": text}, prefix) for prefix in default)
    for columns, own in _read(file) if file else ():
        yield from (_Ask(columns, prefix) for prefix in (default if own is ... else [own]))


def _read(file: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """Columns and own prefix (`...` if the row says nothing) of every row."""
    from foreword.tuning.formats import read_rows

    for row in read_rows(file):
        values = dict(row.values or {})
        own = values.pop("prefix", ...)
        problem = row.problem
        if problem is None and not isinstance(values.get("input"), str):
            problem = "no text in column 'input'"
        if problem is None and own is not ... and not isinstance(own, str | None):
            problem = (
                "`prefix` should be an artifact directory, a reference, or null for the bare model"
            )
        if problem is not None:
            raise DataError(f"{row.source}: {problem}; nothing was generated", code="data.bad_rows")
        yield {k: v if isinstance(v, str) else str(v) for k, v in values.items()}, own


def _row(ask: _Ask, answer: Completion) -> dict[str, Any]:
    return {
        "input": ask.columns["input"],
        "text": answer.text,
        "prefix": answer.prefix,
        "digest": str(answer.digest) if answer.digest else None,
    }


def _deliver(rows: list[dict[str, Any]], file: Path | None) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if file is not None:
        _write(file, lines)
        errors.print(f"{len(rows)} answers written to {file}", soft_wrap=True)
    elif out.is_terminal:
        for row in rows:
            out.print(f"[dim]{row['prefix'] or 'bare model'}[/dim]")
            out.print(row["text"], markup=False)
    else:
        write(lines)


def _write(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        if file.exists() and not file.is_file():
            # A pipe or a device is written to; renaming over it would replace it by a file.
            file.write_text(text, encoding="utf-8")
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    except OSError as e:
        draft.unlink(missing_ok=True)
        raise StorageError(
            f"{file} could not be written ({e.strerror})", code="storage.write"
        ) from e
