"""What the model reads for a request: messages or text, put as the prefix was trained, as token ids.

A prompt is never cut. What cannot fit the context together with the prefix and the answer is refused,
and a text that is far too long is refused before it is turned into tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from foreword.artifact import PromptFormat
from foreword.errors import Overloaded, PromptTooLong, UsageError
from foreword.prefix.prompts import render
from foreword.serving.gateway.forms import columns, is_chat, no_inputs, only_text, spoken
from foreword.serving.gateway.tokens import Encoder, texts_of

Style = Literal["trained", "chat", "raw"]
Message = Mapping[str, Any]
Tokens = tuple[int, ...]
_LONG_TOKENS = 12
"""Characters to a token, on average, that no language has; rows of blanks may."""
_AT_ONCE = 1_024
"""Characters that are made into tokens where they come, half a millisecond: a thread would cost as much."""
_EACH = 64
"""What a text costs beside its own characters, in characters."""
_PATIENCE = 10.0
"""Seconds until the tokens have to be there; a thread needs a tenth of one, so it is busy then."""
_THREADS = 2
"""Texts at once that are not short: a long one leaves a thread to the others."""


@dataclass(frozen=True)
class Way:
    """How a request is put to the model."""

    trained: PromptFormat | None = None
    """How the prefix that answers was trained; None for the bare model."""
    style: Style | None = None
    """What the client wants; None: as trained."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Texts for the places of a trained template, by column."""


class Prompter:
    """Token ids for one base model. `context` is in tokens, None: no limit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int | None) -> None:
        self.context = context
        self._encoder = Encoder(tokenizer)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="foreword-prompt")

    def spell(self, token: int) -> bytes:
        """The bytes of one token, for log-probabilities."""
        return self._encoder.spell(token)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], way: Way
    ) -> Tokens:
        """A conversation. Without a trained template it goes through the base's chat template.

        Raises:
            UsageError: it cannot be put that way (`prompt.messages`, `prompt.inputs`,
                `prompt.template_refused`, ...).
            PromptTooLong: it is far too long.
        """
        return await self._made(
            lambda: self._chat(messages, tools, way),
            short=_is_short(chain(texts_of(messages), texts_of(tools), _added(way))),
        )

    async def texts(self, prompts: Sequence[str | Tokens], way: Way) -> list[Tokens]:
        """Texts as they are, or each as the input of the trained template if `way.style` is `trained`.

        What is tokens already stays as it is.

        Raises:
            UsageError, PromptTooLong: as `chat`; also if they are far too long together.
        """
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        self._require_affordable(texts)
        short = _is_short(chain(texts, _added(way)))
        return [
            await self._made(partial(self._text, prompt, way), short=short)
            if isinstance(prompt, str)
            else prompt
            for prompt in prompts
        ]

    def _require_affordable(self, texts: Collection[str]) -> None:
        """Refuse what has more characters together than two prompts may have, in however many it comes."""
        if self.context is None:
            return
        size, most = sum(map(len, texts)), 2 * _LONG_TOKENS * self.context
        if size > most:
            raise PromptTooLong(
                f"the prompts of one request may have {most:,} characters together, got {size:,}; "
                "send several requests",
                code="context.too_long",
            )

    def new_tokens(self, prompt: Tokens, length: int, wanted: int | None) -> int:
        """How many tokens an answer may have: what is wanted, or else all that is left.

        `length` is that of the prefix, whose virtual tokens count too.

        Raises:
            PromptTooLong: they do not fit (`context.too_long`).
        """
        if self.context is None:
            return wanted if wanted is not None else _UNLIMITED
        left = self.context - length - len(prompt)
        if left < (wanted or 1):
            raise PromptTooLong(
                f"the context of this model is {self.context:,} tokens; the prefix has {length:,}, "
                f"the prompt {len(prompt):,} and the answer may have "
                f"{'at least 1' if wanted is None else f'{wanted:,}'}: "
                f"{length + len(prompt) + (wanted or 1):,} in all; shorten the prompt"
                f"{'' if wanted is None else ' or lower max_tokens'}",
                code="context.too_long",
            )
        return left if wanted is None else wanted

    async def _made(self, work: Callable[[], Tokens], *, short: bool) -> Tokens:
        """Here if the texts are short, and on a thread if all others would wait for them."""
        if short:
            return work()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as e:
            raise Overloaded(
                "too many long prompts wait to be made into tokens; try again later",
                code="serving.prompts",
                retry_after=1.0,
            ) from e

    # Here or on a thread.

    def _chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], way: Way
    ) -> Tokens:
        style, trained = way.style or "trained", way.trained
        if style == "raw":
            return self._plain(only_text(messages, tools, "raw"))
        if style == "chat" or trained is None or trained.kind == "chat":
            no_inputs(way, "a conversation in the chat template")
            return self._conversation(messages, tools)
        text = only_text(messages, tools, f"the template {trained.template[:80]!r}")
        return self._filled(trained, text, way.inputs)

    def _text(self, text: str, way: Way) -> Tokens:
        if way.style == "chat" or (way.style == "trained" and is_chat(way.trained)):
            no_inputs(way, "a conversation in the chat template")
            return self._conversation([{"role": "user", "content": text}], ())
        if way.style == "trained" or (way.inputs and way.style is None):
            if way.trained is None:
                raise UsageError(
                    "foreword.prompt is 'trained' or foreword.inputs are given, but no prefix answers, so "
                    "there is no trained template; leave them out",
                    code="prompt.not_trained",
                )
            return self._filled(way.trained, text, way.inputs)
        no_inputs(way, "a text as it is")
        return self._plain(text)

    def _plain(self, text: str) -> Tokens:
        self._require_short((text,))
        return self._encoder.plain(text)

    def _filled(self, trained: PromptFormat, text: str, inputs: Mapping[str, str]) -> Tokens:
        filling = columns(trained, text, inputs)
        self._require_short(filling.values())
        mark = self._encoder.mark_for([*filling.values(), trained.template])
        filled = render(trained, self._encoder.shield(filling, mark))
        return self._encoder.encode(filled, mark)

    def _conversation(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> Tokens:
        tokenizer = self._encoder.tokenizer
        if not tokenizer.chat_template:
            raise UsageError(
                "this base model has no chat template; use /v1/completions, or a prefix that was trained "
                "with a template of its own",
                code="prompt.no_chat_template",
            )
        said = [spoken(message) for message in messages]
        texts = [*texts_of(said), *texts_of(tools)]
        self._require_short(texts)
        mark = self._encoder.mark_for(texts)
        try:
            text = tokenizer.apply_chat_template(
                self._encoder.shield(said, mark),
                tools=self._encoder.shield(list(tools), mark) or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as e:
            raise UsageError(
                f"the model's chat template does not take these messages ({str(e)[:200]!r}); see its "
                "documentation for the roles and the order it knows",
                code="prompt.template_refused",
            ) from e
        return self._encoder.encode(text, mark, whole=True)

    def _require_short(self, texts: Collection[str]) -> None:
        """Refuse what is far too long before anything as long as it is made of it."""
        if self.context is None:
            return
        size, most = sum(map(len, texts)), self.context * _LONG_TOKENS
        if size > most or (size > self.context and self._encoder.exceeds(texts, self.context)):
            raise PromptTooLong(
                f"the context of this model is {self.context:,} tokens, and a prompt may have "
                f"{most:,} characters, got {size:,}, which is too long; shorten it",
                code="context.too_long",
            )


def _is_short(texts: Iterable[str]) -> bool:
    """Whether it takes a moment to make tokens of all these together."""
    size = 0
    for text in texts:
        size += len(text) + _EACH
        if size > _AT_ONCE:
            return False
    return True


def _added(way: Way) -> Iterator[str]:
    """What is put to a request's own texts."""
    yield from way.inputs.values()
    if way.trained is not None and way.trained.kind == "template":
        yield way.trained.template


_UNLIMITED = 4096
"""Tokens of an answer that asked for no number, on a model without a limit."""
