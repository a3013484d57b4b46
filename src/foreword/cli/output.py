"""Where output goes: results to stdout, everything said along the way to stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console

out = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def visible(text: str) -> str:
    """Text from outside with its control characters spelled out, so it cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write(text: str) -> None:
    """Text on stdout as it is, now: at the interpreter's end a full disk could not be told any more.

    Raises:
        OSError: stdout took not all of it. What is left is dropped, or the end would try it again.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def quiet_libraries() -> None:
    """Keep progress bars and advice of transformers out of our output."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
