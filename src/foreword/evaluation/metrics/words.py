"""How texts are cut into words: one way for our own metrics, one for the published ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from foreword.errors import UsageError

_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_PUNCTUATION = frozenset(
    (
        "''",
        "'",
        "``",
        "`",
        "-LRB-",
        "-RRB-",
        "-LCB-",
        "-RCB-",
        ".",
        "?",
        "!",
        ",",
        ":",
        "-",
        "--",
        "...",
        ";",
    )
)
"""What the COCO tokenizer leaves out."""

Ngram = tuple[str, ...]


def words(text: str) -> list[str]:
    """Words and numbers without case and punctuation, in any script that has word borders."""
    return _WORD.findall(text.casefold())


@lru_cache(maxsize=1 << 14)
def tokens_13a(text: str) -> tuple[str, ...]:
    """Lower-case tokens as mteval-v13a cuts them; punctuation is tokens too."""
    return tuple(_tokenizer()(text.strip().lower()).split())


def content_13a(text: str) -> list[str]:
    """`tokens_13a` without punctuation."""
    return [token for token in tokens_13a(text) if token not in _PUNCTUATION]


def ngrams(tokens: Sequence[str], most: int) -> Counter[Ngram]:
    """How often each n-gram of 1 to `most` tokens occurs."""
    return Counter(
        tuple(tokens[start : start + n])
        for n in range(1, most + 1)
        for start in range(len(tokens) - n + 1)
    )


@cache
def _tokenizer() -> Callable[[str], str]:
    sacrebleu()  # raises what a user can act on if it is not installed
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()  # type: ignore[no-any-return]


def sacrebleu() -> Any:
    """The library.

    Raises:
        UsageError: it is not installed (`evaluation.extra`).
    """
    try:
        import sacrebleu
    except ImportError as e:
        raise UsageError(
            "BLEU, chrF, NIST, ROUGE-L and CIDEr need the package `sacrebleu`; install foreword[eval]",
            code="evaluation.extra",
        ) from e
    return sacrebleu
