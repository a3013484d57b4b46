"""Answer a list of inputs with one prefix, several, or none: the engine without a server.

Decoders run on the batching engine. Encoder-decoders run in static batches of transformers'
`generate`, in which every row has its own prefix or none as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from foreword.artifact import Digest, PromptFormat
from foreword.errors import PromptTooLong, UnsupportedModel
from foreword.prefix.base_model import BaseModel
from foreword.prefix.loading import LoadedPrefix
from foreword.prefix.prompts import PLAIN, encode_prompt, render
from foreword.serving import seq2seq
from foreword.serving.contract import AdapterSet, Chunk, GenerateRequest, Sampling
from foreword.serving.engine.engine import Engine, EngineSettings, Failure
from foreword.serving.engine.residency.held import HeldPrefixes
from foreword.serving.engine.waiting.queue import Limits

_AT_ONCE = 32
"""Answers decoded together; more gain little on a CPU and take memory."""


@dataclass(frozen=True)
class GenerationRequest:
    """One input: its columns, the prefix that answers (None: the bare model) and how it is put.

    Without a prefix the input is given as it is, unless `prompt` says otherwise; with one, the
    prompt format the prefix was trained with is used.
    """

    columns: Mapping[str, str]
    prefix: LoadedPrefix | None = None
    prompt: PromptFormat | None = None

    @property
    def format(self) -> PromptFormat:
        if self.prompt is not None:
            return self.prompt
        return self.prefix.prompt if self.prefix else PLAIN


@dataclass(frozen=True)
class Completion:
    """One answer, and exactly which prefix was attached."""

    text: str
    token_ids: tuple[int, ...]
    """Without the token that ended the answer."""
    prefix: str | None
    """Name and version, or None for the bare model."""
    digest: Digest | None
    seconds: float | None = field(default=None, compare=False)
    """From the step of its first token to its last, in the batch it shared; None if it ran in none."""


def generate(
    base: BaseModel,
    requests: Sequence[GenerationRequest],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
    finished: Callable[[int, Completion], None] = lambda place, completion: None,
) -> list[Completion]:
    """Answers in the order of `requests`; rows with different prefixes share batches.

    Greedy with temperature 0. A decoder's sampled answer depends on `seed` and on its place in the
    list, not on the other requests; an encoder-decoder's on all of them. `progress` is told how
    many requests are done, `finished` each answer when it ends and its place in the list.

    Raises:
        PromptTooLong: prompt, prefix and new tokens do not fit the model's context.
        UnsupportedModel: the base is an encoder; it writes no text.
        ServingError: an answer broke; none is replaced by another.
    """
    if base.kind == "masked":
        raise UnsupportedModel(
            f"{base.ref.architecture} is an encoder without a decoder; it writes no text",
            code="model.encoder_only",
        )
    prompts = [_encode(base, r, i, max_new_tokens) for i, r in enumerate(requests)]
    if base.kind == "seq2seq":
        rows = seq2seq.generate(
            base, prompts, [r.prefix.kv if r.prefix else None for r in requests],
            max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, progress=progress,
        )  # fmt: skip
        said = [
            _completion(r, ids, base.required_tokenizer().decode(ids, skip_special_tokens=True))
            for r, ids in zip(requests, rows, strict=True)
        ]
        for place, completion in enumerate(said):
            finished(place, completion)
        return said
    asked = [
        GenerateRequest(
            id=str(i),
            prompt=tuple(prompt),
            adapters=AdapterSet(request.prefix.digest if request.prefix else None),
            max_tokens=max_new_tokens,
            # A number of its own for each, or equal inputs would get equal answers.
            sampling=Sampling(temperature=temperature, seed=(seed << 32) + i),
        )
        for i, (request, prompt) in enumerate(zip(requests, prompts, strict=True))
    ]
    held = HeldPrefixes(r.prefix for r in requests if r.prefix is not None)
    answers: dict[int, Completion] = {}
    for place, chunks, seconds in _answers(base, held, asked):
        ids = [token for chunk in chunks for token in chunk.tokens]
        text = "".join(chunk.text for chunk in chunks)
        answers[place] = _completion(requests[place], ids, text, seconds)
        finished(place, answers[place])
        if len(answers) % _AT_ONCE == 0 or len(answers) == len(asked):
            progress(len(answers))
    return [answers[place] for place in range(len(asked))]


def _answers(
    base: BaseModel, held: HeldPrefixes, requests: Sequence[GenerateRequest]
) -> Iterator[tuple[int, list[Chunk], float]]:
    """Place, chunks and seconds of every request as it ends, all through one engine."""
    waiting = Limits(total=len(requests) + 1, per_tenant=len(requests) + 1)
    engine = Engine(base, held, EngineSettings(most_running=_AT_ONCE, queue=waiting))
    for request in requests:
        engine.submit(request, time.monotonic())
    said: dict[str, tuple[float, list[Chunk]]] = {}
    while engine.busy:
        now = time.monotonic()
        for event in engine.step(now):
            if isinstance(event, Failure):
                raise event.error
            began, chunks = said.setdefault(event.id, (now, []))
            chunks.append(event)
            if event.finish is not None:
                del said[event.id]
                yield int(event.id), chunks, time.monotonic() - began


def _encode(base: BaseModel, request: GenerationRequest, index: int, new: int) -> list[int]:
    tokenizer = base.required_tokenizer()
    text = render(request.format, request.columns, tokenizer)
    ids = encode_prompt(tokenizer, text, request.format, base.kind)
    virtual = request.prefix.kv.length if request.prefix else 0
    read, said = (len(ids), new) if base.kind == "causal" else (max(len(ids), new), 0)
    if base.context is not None and read + said + virtual > base.context:
        raise PromptTooLong(
            f"input {index + 1}: {len(ids)} prompt tokens, {virtual} virtual tokens and {new} new "
            f"ones do not fit the context of {base.context}; shorten the input or lower "
            "--max-new-tokens"
        )
    return ids


def _completion(
    request: GenerationRequest, ids: Sequence[int], text: str, seconds: float | None = None
) -> Completion:
    prefix = request.prefix
    name = f"{prefix.name}@{prefix.version}" if prefix else None
    digest = prefix.digest if prefix else None
    return Completion(text.strip(), tuple(ids), name, digest, seconds)
