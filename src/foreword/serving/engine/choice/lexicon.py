"""The bytes each token stands for, as the grammar engine wants to know them."""

from __future__ import annotations

from collections.abc import Sequence

import llguidance.hf
from llguidance import LLTokenizer, TokenizerWrapper
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from foreword.errors import CompatibilityError

_AHEAD = 1024
"""Bytes of a forced text that are split into tokens at once.

A grammar can force a long text, `a{100000}` for one, and llguidance has all of it tokenized again
at every token; it needs the beginning only.
"""


class Lexicon:
    """What llguidance asks of a tokenizer; its attribute names are llguidance's."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab: int, ends: Sequence[int]) -> None:
        known = min(vocab, len(tokenizer))
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.eos_token_id = ends[0]
        self.bos_token_id: int | None = None
        silent = {i for i in special | {*ends} if i < known}
        self.special_token_ids = sorted(silent)
        self.tokens = _spellings(tokenizer, known, silent)
        self._encode = tokenizer.backend_tokenizer.encode
        self._ids = {text: i for i, text in enumerate(self.tokens) if i not in silent}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, data: bytes) -> list[int]:
        """Tokens for the beginning of `data`: the model's own where they spell it, else long ones.

        A tokenizer may lack characters, or put a space in front, and then its tokens spell
        something else. An empty list says that no token can go on.
        """
        data = data[:_AHEAD]
        ids: list[int] = self._encode(data.decode(errors="ignore"), add_special_tokens=False).ids
        said = b"".join(self.tokens[i] for i in ids if i < len(self.tokens))
        return ids if said and data.startswith(said) else self._longest_first(data)

    def _longest_first(self, data: bytes) -> list[int]:
        out, at = [], 0
        while at < len(data):
            reach = range(min(self._longest, len(data) - at), 0, -1)
            length = next((n for n in reach if data[at : at + n] in self._ids), 0)
            if not length:
                break
            out.append(self._ids[data[at : at + length]])
            at += length
        return out


def make_tokenizer(
    tokenizer: PreTrainedTokenizerBase, vocab: int, ends: Sequence[int]
) -> LLTokenizer:
    """llguidance's view of a tokenizer whose model has `vocab` logits; takes about half a second.

    Raises:
        CompatibilityError: it is not a fast tokenizer, or no token ends an answer.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CompatibilityError(
            f"constrained answers need a fast tokenizer, and this base has a "
            f"{type(tokenizer).__name__}; add its tokenizer.json",
            code="base.slow_tokenizer",
        )
    if not ends:
        raise CompatibilityError(
            "constrained answers need a token that ends an answer, and this base names none; set "
            "eos_token_id in its config.json",
            code="base.no_end_token",
        )
    wrapped = TokenizerWrapper(Lexicon(tokenizer, vocab, ends))
    return LLTokenizer(wrapped, n_vocab=vocab, eos_token=list(ends))


def _spellings(tokenizer: PreTrainedTokenizerFast, known: int, special: set[int]) -> list[bytes]:
    try:
        theirs = llguidance.hf.from_tokenizer(tokenizer)
    except ValueError:  # neither byte-level nor with tokens for bytes: its tokens are characters
        return _decoded(tokenizer, known, special)
    return [theirs.decode_bytes([i]) for i in range(known)]


def _decoded(tokenizer: PreTrainedTokenizerFast, known: int, special: set[int]) -> list[bytes]:
    """What each token adds behind another one: at the start a decoder may drop a space."""
    decode = tokenizer.backend_tokenizer.decode
    first = next(i for i in range(known) if i not in special and decode([i]))
    skip = len(decode([first]))
    names = tokenizer.convert_ids_to_tokens(range(known))
    return [
        (name or "").encode() if i in special else decode([first, i])[skip:].encode()
        for i, name in enumerate(names)
    ]
