"""`foreword train`: from a dataset to an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foreword.cli.output import errors, out

if TYPE_CHECKING:
    from foreword.tuning.train import Progress, TrainedPrefix


def train(
    base: Annotated[
        str,
        typer.Option(
            help="Base model: demo, a name, a directory, a Hugging Face id or a GGUF file."
        ),
    ],
    data: Annotated[str, typer.Option(help="JSONL, CSV, TSV or Parquet file, or hf:NAME.")],
    out_: Annotated[Path, typer.Option("--out", help="Directory for the artifact.")],
    recipe: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as train.steps=100.")
    ] = None,
) -> None:
    """Train a prefix. Stopped at any moment, the same command goes on where it was."""
    from foreword.config import load_settings
    from foreword.tuning.recipe import Recipe

    # Settings and data are read first: a mistake there should not wait for a model to load.
    settings = load_settings(Recipe, recipe, set_ or [])

    from foreword.cli.output import quiet_libraries
    from foreword.prefix.base_model import load_base
    from foreword.tuning.data import load_dataset
    from foreword.tuning.train import require_free, train

    quiet_libraries()
    require_free(out_)
    early = settings.data.template != "chat"
    dataset = load_dataset(data, settings.data, seed=settings.seed) if early else None
    loaded = load_base(base)
    if dataset is None:
        dataset = load_dataset(data, settings.data, seed=settings.seed, tokenizer=loaded.tokenizer)
    errors.print(
        f"{len(dataset.train)} training and {len(dataset.held_out)} held-out rows"
        + (f", {len(dataset.bad_rows)} bad rows left out" if dataset.bad_rows else "")
        + (f", {dataset.duplicates} duplicates" if dataset.duplicates else "")
    )
    with Bar() as bar:
        result = train(settings, loaded, dataset, out_, progress=bar.show)
    _summary(result, base)


class Bar:
    """One line: step, loss, held-out loss beside the frozen model's, speed, time left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("training"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.description}"), console=errors,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)
        self._held_out = "-"

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        if progress.resumed_from and progress.step == progress.resumed_from + 1:
            errors.print(f"resumed after step {progress.resumed_from}")
        if progress.held_out is not None:
            self._held_out = f"{progress.held_out:.3f}"
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        text = (
            f"loss {progress.loss:.3f}, held-out {self._held_out} (frozen {progress.frozen:.3f}), "
            f"{progress.tokens_per_second:.0f} tokens/s, {minutes}:{seconds:02d} left"
        )
        self._bar.update(
            self._task, total=progress.steps, completed=progress.step, description=text
        )
        if not errors.is_terminal and progress.held_out is not None:
            errors.print(f"step {progress.step}/{progress.steps}: {text}", soft_wrap=True)


def _summary(result: TrainedPrefix, base: str) -> None:
    outcome, directory = result.outcome, result.directory
    out.print(f"held-out loss {outcome.held_out:.3f}, the frozen model has {outcome.frozen:.3f}")
    for warning in outcome.warnings:
        errors.print(f"warning: {warning}", markup=False, soft_wrap=True)
    out.print(f"artifact  {directory}  ({result.artifact.digest})", soft_wrap=True)
    out.print(f"report    {directory / 'report.html'}", soft_wrap=True)
    out.print(f"log       {directory / 'training.jsonl'}", soft_wrap=True)
    out.print(
        f'try it    foreword generate --base {base} --prefix {directory} "..."', soft_wrap=True
    )
