"""Hold an answer to a JSON schema or a regular expression, token by token.

A `Grammar` is compiled once per constraint; each answer follows a `Matcher` of its own. llguidance
does the work (docs/decisions/0007-constrained-output.md).
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from foreword.errors import UsageError
from foreword.serving.contract import Constraint
from foreword.serving.engine.choice.lexicon import make_tokenizer
from foreword.serving.engine.choice.trial import objection

MAX_CONSTRAINT_BYTES = 64 * 1024
KEPT_GRAMMARS = 64

# Room to indent, but not for a model that writes spaces until its tokens are used up.
_JSON_SPACE = r"[ \n\t]{1,16}"

_Key = tuple[str, Constraint]
"""A tenant and what it asked for."""

_STUCK = "no token of this model can go on here"


class Grammars:
    """Compiles constraints for one tokenizer and keeps the latest, for each tenant its own: whether one
    is kept shows in the time to a first token, and would tell what others ask.

    Any thread may compile, and it should not be the engine's: a new constraint takes a tenth of a
    second, a hostile one `TRIAL_SECONDS`. They are compiled one at a time.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab: int, ends: Sequence[int]) -> None:
        """`vocab` is the number of logits, `ends` are the tokens that end an answer."""
        self._tokenizer, self._vocab, self._ends = tokenizer, vocab, tuple(ends)
        self._made: LLTokenizer | None = None
        self._kept: OrderedDict[_Key, Grammar | UsageError] = OrderedDict()
        self._keeping, self._compiling = threading.Lock(), threading.Lock()

    def compile(self, constraint: Constraint, tenant: str = "default") -> Grammar:
        """The grammar of a tenant's constraint.

        Raises:
            UsageError: `request.constraint`; it is too long, not understood or too complex.
            CompatibilityError: the base's tokenizer cannot be constrained.
        """
        key = tenant, constraint
        found = self._find(key)
        if found is None:
            with self._compiling:
                found = self._find(key) or self._keep(key, self._try(constraint))
        if isinstance(found, UsageError):
            # A new one: an exception that is raised again would collect tracebacks.
            raise UsageError(str(found), code=found.code)
        return found

    def drop_tenant(self, tenant: str) -> None:
        """Let go all that a tenant compiled."""
        with self._keeping:
            for key in [key for key in self._kept if key[0] == tenant]:
                del self._kept[key]

    def _find(self, key: _Key) -> Grammar | UsageError | None:
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: _Key, result: Grammar | UsageError) -> Grammar | UsageError:
        """Refusals are kept too: what is hostile would cost the same again."""
        with self._keeping:
            self._kept[key] = result
            if len(self._kept) > KEPT_GRAMMARS:
                # Of the tenant that keeps most: nobody drives out what others keep by asking a lot.
                held = Counter(tenant for tenant, _ in self._kept)
                most = max(held, key=held.__getitem__)
                del self._kept[next(key for key in self._kept if key[0] == most)]
        return result

    def _try(self, constraint: Constraint) -> Grammar | UsageError:
        if self._made is None:
            self._made = make_tokenizer(self._tokenizer, self._vocab, self._ends)
        try:
            text = _grammar_text(constraint)
            said = objection(text)
            if said is not None:
                _refuse(said)
            grammar = Grammar(
                LLMatcher(self._made, text, log_level=0, limits=_limits()), self._vocab
            )
            grammar.matcher().mask()
        except UsageError as e:
            return e
        return grammar


class Grammar:
    """A compiled constraint."""

    def __init__(self, start: LLMatcher, vocab: int) -> None:
        self._start, self._vocab = start, vocab

    def matcher(self) -> Matcher:
        """A matcher at the start of an answer, independent of all others."""
        return Matcher(self._start.deep_copy(), self._vocab)


class Matcher:
    """Where one answer is in its grammar."""

    def __init__(self, state: LLMatcher, vocab: int) -> None:
        self._state, self._vocab = state, vocab
        self._bits = allocate_token_bitmask(1, vocab)

    @property
    def finished(self) -> bool:
        """True if the answer is complete and nothing can follow but its end."""
        return self._state.is_stopped() and self._state.is_accepting()

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, `[vocab]`; an end only where the answer may end.

        Raises:
            UsageError: `request.constraint`; no token can go on, or finding one takes too long.
        """
        self._check()
        fill_next_token_bitmask(self._state, self._bits)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8), count=self._vocab, bitorder="little")
        if not bits.any():
            _refuse(_STUCK)
        return bits.view(np.bool_)

    def accept(self, token: int) -> None:
        """Go on with a token that `mask` allowed.

        Raises:
            UsageError: `request.constraint`; it does not go on, or following it takes too long.
        """
        self._state.consume_token(token)
        self._check()

    def _check(self) -> None:
        if not self._state.is_error():
            return
        if self._state.stop_reason() == "NoExtensionBias" or "NoExt" in self._state.get_error():
            _refuse(_STUCK)
        _refuse(self._state.get_error())


def _limits() -> LLParserLimits:
    """llguidance's own limits of work per token; its errors without the schema in them."""
    return LLParserLimits(verbose_errors=False)


def _grammar_text(constraint: Constraint) -> str:
    size = len(constraint.text.encode(errors="replace"))
    if size > MAX_CONSTRAINT_BYTES:
        _refuse(f"expected at most {MAX_CONSTRAINT_BYTES} bytes, got {size}")
    try:
        if constraint.kind == "regex":
            return LLMatcher.grammar_from_regex(constraint.text)
        # Lenient would let a schema ask to have ignored what is not implemented.
        return LLMatcher.grammar_from_json_schema(
            constraint.text, overrides={"whitespace_pattern": _JSON_SPACE, "lenient": False}
        )
    except ValueError as e:  # also what UTF-8 cannot say
        _refuse(str(e))


def _refuse(reason: str) -> NoReturn:
    line = " ".join(reason.split())[:200]
    # repr: the reason quotes what came from outside
    raise UsageError(
        f"the constraint cannot be followed: {line!r}; expected a JSON schema or a regular "
        "expression without look-around and back-references, not too complex",
        code="request.constraint",
    )
