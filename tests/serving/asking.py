"""Requests for tiny engines, what came of them, and what the model says without any engine."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor

from foreword.artifact import Digest, PromptFormat
from foreword.errors import ForewordError
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from foreword.prefix.loading import LoadedPrefix
from foreword.serving.contract import (
    AdapterSet,
    Chunk,
    Finish,
    GenerateRequest,
    TokenLogprob,
    Usage,
)
from foreword.serving.engine.engine import Engine, EngineSettings, Event, Failure
from foreword.serving.engine.residency.held import HeldPrefixes
from tests.serving.prefix_samples import kv
from tests.tiny import ids, tokenizer

_IDS = itertools.count()
_MOST_STEPS = 5000


def wide_base() -> BaseModel:
    """A random base with a context of 256, for texts that need rows of several capacities."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, max_position_embeddings=256, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return BaseModel.from_model(model, tokenizer())


def text(tokens: int, seed: int = 0) -> tuple[int, ...]:
    """Token ids that are never special."""
    return tuple(ids(1, tokens, seed)[0].tolist())


def ask(
    prompt: Sequence[int], prefix: LoadedPrefix | None = None, **options: Any
) -> GenerateRequest:
    """A request with an id of its own that goes on to its last token, unless told otherwise."""
    defaults: dict[str, Any] = {"id": f"r{next(_IDS)}", "max_tokens": 6, "ignore_eos": True}
    adapters = AdapterSet(prefix.digest if prefix is not None else None)
    return GenerateRequest(prompt=tuple(prompt), adapters=adapters, **defaults | options)


def loaded(base: BaseModel, number: int, length: int = 4) -> LoadedPrefix:
    """A random prefix, another one for each number."""
    return held(kv(base, number, length), f"acme/p{number}")


def held(prefix: PrefixKV, name: str) -> LoadedPrefix:
    digest = Digest.of(f"{name} {prefix.length}".encode())
    return LoadedPrefix(name, "1.0.0", digest, prefix, PromptFormat("template", "{input}"))


def engine_with(base: BaseModel, *prefixes: LoadedPrefix, **settings: Any) -> Engine:
    """A small engine that holds these prefixes."""
    limits = {"kv_bytes": 16 << 20, **settings}
    return Engine(base, HeldPrefixes(prefixes), EngineSettings(**limits))


@torch.no_grad()
def logits_of(base: BaseModel, prefix: PrefixKV | None, tokens: Sequence[int]) -> Tensor:
    """`[token, vocabulary]` by the model's own forward pass."""
    with attach(base, prefix):
        logits: Tensor = base.model(torch.tensor([list(tokens)])).logits[0]
    return logits


def greedy(
    base: BaseModel, prefix: PrefixKV | None, prompt: Sequence[int], count: int
) -> list[int]:
    """The likeliest tokens, with the whole text run again for each of them."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_of(base, prefix, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


@dataclass
class Heard:
    """What came of one request."""

    chunks: defaultdict[int, list[Chunk]] = field(default_factory=lambda: defaultdict(list))
    error: ForewordError | None = None

    def tokens(self, index: int = 0) -> list[int]:
        return [token for chunk in self.chunks[index] for token in chunk.tokens]

    def text(self, index: int = 0) -> str:
        return "".join(chunk.text for chunk in self.chunks[index])

    def logprobs(self, index: int = 0) -> list[TokenLogprob]:
        return [said for chunk in self.chunks[index] for said in chunk.logprobs]

    def finish(self, index: int = 0) -> Finish | None:
        return self.chunks[index][-1].finish if self.chunks[index] else None

    def usage(self, index: int = 0) -> Usage:
        usage = self.chunks[index][-1].usage
        if usage is None:
            raise AssertionError(f"answer {index} has no end")
        return usage

    def take(self, event: Event) -> None:
        """Nothing may come behind an error or an answer's end."""
        if self.error is not None:
            raise AssertionError(f"{event} came after {self.error!r}")
        if isinstance(event, Failure):
            self.error = event.error
        elif self.finish(event.index) is not None:
            raise AssertionError(f"{event} came after the end of its answer")
        else:
            self.chunks[event.index].append(event)


class Driver:
    """An engine driven by hand: time stands still between steps, and every step is checked."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = 100.0
        self.heard: defaultdict[str, Heard] = defaultdict(Heard)

    def submit(self, *requests: GenerateRequest) -> None:
        for request in requests:
            self.engine.submit(request, self.now)

    def step(self, seconds: float = 0.01) -> list[Event]:
        """One step; gives its events, which are also in `heard`."""
        self.now += seconds
        events = self.engine.step(self.now)
        self.engine.check_integrity()
        for event in events:
            self.heard[event.id].take(event)
        return events

    def run(self, *requests: GenerateRequest) -> list[Heard]:
        """Submit, go on until nothing is left, and give what came of these requests."""
        self.submit(*requests)
        for _ in range(_MOST_STEPS):
            if not self.engine.busy:
                break
            self.step()
        else:
            raise AssertionError(f"still busy after {_MOST_STEPS} steps")
        capacity = self.engine.capacity()
        if capacity.running or capacity.waiting:
            raise AssertionError(f"an engine with nothing to do says {capacity}")
        return [self.heard[request.id] for request in requests]


def answers(engine: Engine, *requests: GenerateRequest) -> list[list[int]]:
    """The first answer of every request, all at once in one engine; any failure is raised."""
    heard = Driver(engine).run(*requests)
    for each in heard:
        if each.error is not None:
            raise each.error
    return [each.tokens() for each in heard]
