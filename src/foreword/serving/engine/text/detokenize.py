"""Turn tokens into text while they arrive, without ever taking a character back.

All pieces together are what the tokenizer's own `decode` gives for all tokens, special ones left
out. (transformers can also tidy up spaces after decoding. That rewrites text which was
shown already, and it is not done for byte-level BPE anyway, so it is left out here.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_KEPT = 4
"""Tokens of context: a character has at most four bytes, and a token that is heard at least one."""
_WINDOW = 16
"""Tokens decoded at once before the window is cut back to `_KEPT`: the work per token is bounded."""


class Spelling:
    """What detokenizing has to know of a tokenizer; made once, shared by all answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        ids = {i: token for token, i in tokenizer.get_vocab().items()}
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = {i for i, token in added.items() if token.special}
        self.heard = frozenset(i for i, token in ids.items() if token and i not in special)
        """Tokens with a text; the others leave no trace."""
        self.bytes = frozenset(i for i, token in ids.items() if _BYTE_TOKEN.fullmatch(token))
        """Tokens that are one byte of a character the vocabulary lacks."""
        self.decode: Callable[[Sequence[int]], str] = _decoder(tokenizer)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[int]], str]:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # The same function without transformers' wrapping, which costs several times more.
        decode: Callable[[Sequence[int]], str] = backend.decode
        return decode
    return lambda ids: str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


class Detokenizer:
    """One answer's text so far; it looks back at a few tokens only."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._window: list[int] = []
        """The last tokens: what was decoded, and what waits."""
        self._shown = 0
        """How many characters of the window's text were given out."""

    def push(self, token: int) -> str:
        """The text that `token` makes certain; empty if it ends in the middle of a character."""
        if token not in self._spelling.heard:
            return ""
        self._window.append(token)
        if token in self._spelling.bytes:
            # One wrong byte at the end of a run of byte tokens makes replacement characters of all
            # the run, so nothing of it is certain before it is over.
            return ""
        text = self._spelling.decode(self._window)
        # An unfinished character is decoded to one replacement character.
        certain = len(text) - text.endswith(_REPLACEMENT)
        piece = text[self._shown : certain]
        self._shown = max(self._shown, certain)
        if len(self._window) > _WINDOW:
            self._shorten(waiting=len(text) - self._shown)
        return piece

    def flush(self) -> str:
        """What still waits, at the end of the answer."""
        text = self._spelling.decode(self._window)
        piece, self._window, self._shown = text[self._shown :], [], 0
        return piece

    def _shorten(self, waiting: int) -> None:
        """Forget tokens that were given out.

        The shorter window may begin inside a character and decode to something else there; at its
        end, where text is added, it reads the same.
        """
        self._window = self._window[-_KEPT:]
        self._shown = len(self._spelling.decode(self._window)) - waiting
