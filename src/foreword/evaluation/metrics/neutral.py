"""Texts that have nothing to do with any task, on which perplexity shows what a prefix broke."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from foreword.artifact.disk import read_bounded
from foreword.errors import ArtifactError, DataError

_MOST_BYTES = 8 << 20


def neutral_texts() -> tuple[str, ...]:
    """24 short paragraphs of plain English, written for this."""
    text = files("foreword.evaluation.metrics").joinpath("neutral.txt").read_text("utf-8")
    return paragraphs(text)


def read_texts(path: Path) -> tuple[str, ...]:
    """The paragraphs of a file of one's own, such as in another language.

    Raises:
        DataError: it cannot be read, is no UTF-8, or is empty (`neutral.texts`).
    """
    try:
        found = paragraphs(read_bounded(path, _MOST_BYTES).decode("utf-8"))
    except (ArtifactError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read as text ({e})", code="neutral.texts") from e
    if not found:
        raise DataError(
            f"{path} has no text; expected paragraphs with an empty line between them",
            code="neutral.texts",
        )
    return found


def paragraphs(text: str) -> tuple[str, ...]:
    """What stands between empty lines, each on one line."""
    parts = (" ".join(part.split()) for part in text.replace("\r\n", "\n").split("\n\n"))
    return tuple(part for part in parts if part)
