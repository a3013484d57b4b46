"""From text to tokens, so that a client's text never becomes a control token.

A chat template writes control tokens such as `<|im_end|>` as text. A client may write the same text; for
it that is a row of characters. Both stand in one rendered prompt, so the client's are taken apart with
a mark before rendering, and the prompt is cut at the control tokens that are left: the template's own.
Between them everything is encoded as plain text, which is how tokenizers work anyway.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from foreword.artifact import PromptFormat
from foreword.errors import UsageError
from foreword.prefix.prompts import PLAIN, as_prompt

Value = TypeVar("Value")
Ids = list[int]
_WHOLE = PromptFormat("chat", "")
_MARKS = range(0x13000, 0x13100)
"""Letters of a dead script: printable, so that no template escapes them, and without a case."""
_LOOK = 4_096
"""Characters that are looked at together to see whether a text is too long."""
_AT_A_CUT = 16
"""Tokens that such a piece may have more than it has inside its text."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _letters() -> Iterator[tuple[str, int]]:
    """How byte-level vocabularies write each byte (GPT-2): itself where it is visible in Latin-1."""
    hidden = 0
    for byte in range(256):
        visible = 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174
        yield chr(byte if visible else 256 + hidden), byte
        hidden += not visible


_BYTES = dict(_letters())


class Encoder:
    """Safe from any thread: the tokenizer's own switch for special tokens is never touched."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = _forgetful(tokenizer)
        self._plain = _plain(tokenizer)
        self._controls = _controls(tokenizer)
        self._control_ids = frozenset(self._controls.values())
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._heads = tuple({text[:i] for text in self._controls for i in range(1, len(text))})
        self._tails = tuple({text[i:] for text in self._controls for i in range(1, len(text))})
        self._lead = self._put_before()
        self._said = _said(self.tokenizer)
        self._eos = tokenizer.eos_token_id
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._byte_level = backend is not None and '"ByteLevel"' in backend.to_str()

    def spell(self, token: int) -> bytes:
        """The bytes of one token; it may be a part of a character."""
        said = self.tokenizer.convert_ids_to_tokens(token) or ""
        if found := _BYTE_TOKEN.fullmatch(said):
            return bytes([int(found[1], 16)])
        if self._byte_level and all(letter in _BYTES for letter in said):
            return bytes(_BYTES[letter] for letter in said)
        return said.replace("\u2581", " ").encode(errors="replace")

    def mark_for(self, texts: Iterable[str]) -> str:
        """A mark that is in none of the texts; empty if none of them needs one."""
        texts = list(texts)
        if not any(map(self._needs_mark, texts)):
            return ""
        mark = next((chr(c) for c in _MARKS if not any(chr(c) in text for text in texts)), None)
        if mark is None:
            raise UsageError(
                "the text has both control tokens of the model and every letter that could mark them; "
                "leave one of them out",
                code="prompt.unmarkable",
            )
        return mark

    def shield(self, value: Value, mark: str) -> Value:
        """The same value; control tokens in its texts are taken apart with the mark."""
        return value if not mark else self._shielded(value, mark)

    def encode(self, text: str, mark: str = "", *, whole: bool = False) -> tuple[int, ...]:
        """Token ids of a rendered prompt whose texts were shielded with `mark`.

        `whole`: the text brings all its special tokens itself, as a chat template's does.

        Raises:
            ConfigError: it has no tokens (`prompt.empty`).
        """
        lead = () if whole else self._lead
        if not mark:
            ids = as_prompt(
                self._said(text, not whole), _WHOLE if whole else PLAIN, "causal", self._eos
            )
            if self._count(ids) == self._count(lead) + len(self._any.findall(text)):
                return tuple(ids)
            # A normaliser made a control token of what was none, such as wide brackets.
        return lead + tuple(self._pieces(text, mark))

    def exceeds(self, texts: Iterable[str], most: int) -> bool:
        """Whether these have more than `most` tokens for certain.

        It costs what so many tokens cost, however long the texts are; they are cut where it
        happens, and for each cut tokens are taken off, so that what is a bit too long is not seen.
        """
        count = 0
        for text in texts:
            for start in range(0, len(text), _LOOK):
                ids = self._plain([text[start : start + _LOOK]])[0]
                count += max(0, len(ids) - _AT_A_CUT)
                if count > most:
                    return True
        return False

    def plain(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that is a client's from its first to its last character."""
        mark = self.mark_for([text])
        return self.encode(self.shield(text, mark), mark)

    def _pieces(self, text: str, mark: str) -> Iterator[int]:
        """Everything between control tokens is encoded in one call: there may be thousands."""
        controls = [self._controls[found.group()] for found in self._any.finditer(text)]
        between = self._any.split(text)
        texts = [each.replace(mark, "") if mark else each for each in between]
        for place, (said, ids) in enumerate(zip(texts, self._plain(texts), strict=True)):
            yield from ids if said else ()
            yield from controls[place : place + 1]

    def _count(self, ids: Iterable[int]) -> int:
        return sum(map(self._control_ids.__contains__, ids))

    def _needs_mark(self, text: str) -> bool:
        """Has a control token, or could make one together with what stands beside it."""
        return bool(
            self._any.search(text) or text.endswith(self._heads) or text.startswith(self._tails)
        )

    def _shielded(self, value: Value, mark: str) -> Value:
        if isinstance(value, str):
            return self._apart(value, mark)  # type: ignore[return-value]
        if isinstance(value, Mapping):
            return {  # type: ignore[return-value]
                self._shielded(key, mark): self._shielded(inner, mark)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._shielded(inner, mark) for inner in value]  # type: ignore[return-value]
        return value

    def _apart(self, text: str, mark: str) -> str:
        text = self._any.sub(lambda found: f"{found.group()[0]}{mark}{found.group()[1:]}", text)
        # Half a control token at an edge may meet its other half in the template.
        before = mark if text.startswith(self._tails) else ""
        return f"{before}{text}{mark if text.endswith(self._heads) else ''}"

    def _put_before(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text, such as a beginning-of-text token."""
        body = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        ids = self.tokenizer("a")["input_ids"]
        for start in range(len(ids)):
            if ids[start : start + len(body)] == body:
                return tuple(ids[:start])
        return ()


def _forgetful(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that keeps no words from one text to the next.

    `tokenizers` keeps the pieces of words, which saves a microsecond for each word of a text that came
    before: enough to tell one tenant what another one wrote (tests/reliability/test_timing_probe.py).
    """
    own = copy.deepcopy(tokenizer)
    model = getattr(getattr(own, "backend_tokenizer", None), "model", None)
    if model is not None and hasattr(
        model, "_resize_cache"
    ):  # others than BPE and Unigram keep none
        model._resize_cache(0)
        model._clear_cache()
    return own


def _plain(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], list[Ids]]:
    """Token ids of texts, to which no text is a control token."""
    own = _forgetful(tokenizer)
    backend = getattr(own, "backend_tokenizer", None)
    if backend is None:
        return lambda texts: [
            own(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            for text in texts
        ]
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    # Without offsets and masks, which nobody wants here, it takes half the time.
    return lambda texts: [
        found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)
    ]


def _said(tokenizer: PreTrainedTokenizerBase) -> Callable[[str, bool], Ids]:
    """Token ids as the tokenizer gives them, with its special tokens around them if it is told so.

    For one text the call of `transformers` takes as long as what it calls, `tokenizers`, which is asked
    directly unless this kind of tokenizer does something of its own in between.
    """
    usual = PreTrainedTokenizerFast._encode_plus
    if getattr(type(tokenizer), "_encode_plus", None) is not usual:
        return lambda text, special: tokenizer(text, add_special_tokens=special)["input_ids"]
    tokenizer("a")  # sets up its backend as the tokenizer's own settings ask
    backend = tokenizer.backend_tokenizer
    return lambda text, special: (
        backend.encode_batch_fast([text], add_special_tokens=special)[0].ids
    )


def texts_of(value: object) -> Iterator[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for inner in value.values():
            yield from texts_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_of(inner)


def _controls(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Tokens that the tokenizer calls special, by their text."""
    added = {
        str(token): id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {text: id_ for text, id_ in (added | named).items() if len(text) > 1}
