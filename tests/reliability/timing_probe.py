"""A tenant that measures how long its requests take, to find out what is kept of another tenant's.

A *warm* text was sent before, so that what was computed for it is kept; a *fresh* one never was. The
probe asks for both in random order. At home, where it sent the warm ones itself, times must tell them
apart, or the probe would be blind; abroad, where another tenant sent them, they must not.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import transformers as tf

from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import Chunk, GenerateRequest
from foreword.serving.engine.backend import EmbeddedBackend
from foreword.serving.engine.engine import Engine, EngineSettings
from foreword.serving.engine.job import Job
from tests.tiny import tokenizer

WARM = 25
"""Texts that are kept at the same time; there is room for all of them."""
_SETTINGS = EngineSettings(
    kv_bytes=64 << 20, prompt_cache_bytes=1 << 30, prompt_tokens=128, most_running=8
)
Tokens = tuple[int, ...]
Times = tuple[list[float], list[float]]
"""Of warm texts, of fresh ones."""


def small_base() -> BaseModel:
    """Random weights; a prompt of 600 tokens takes several times as long as one that is kept."""
    torch.manual_seed(17)
    config = tf.LlamaConfig(
        vocab_size=128, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, intermediate_size=128, max_position_embeddings=1024,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return BaseModel.from_model(tf.LlamaForCausalLM(config).eval(), tokenizer(), name="timed")


def engine(base: BaseModel) -> Engine:
    return Engine(base, None, _SETTINGS)


@dataclass
class Texts:
    """Prompts of random tokens; none comes twice."""

    length: int
    vocab: int
    rng: random.Random = field(default_factory=lambda: random.Random(17))

    def new(self) -> Tokens:
        return tuple(self.rng.randrange(5, self.vocab) for _ in range(self.length))

    def some(self, count: int) -> list[Tokens]:
        return [self.new() for _ in range(count)]


@contextmanager
def running(base: BaseModel) -> Iterator[EmbeddedBackend]:
    backend = EmbeddedBackend(engine(base))
    try:
        yield backend
    finally:
        backend.close()


def first_tokens(backend: EmbeddedBackend, texts: Texts, count: int, *, abroad: bool) -> Times:
    """Seconds to the first token, `count` of each kind."""
    return asyncio.run(_first_tokens(backend, texts, count, abroad))


async def _first_tokens(backend: EmbeddedBackend, texts: Texts, count: int, abroad: bool) -> Times:
    times: Times = ([], [])
    warm = texts.some(WARM)
    for text in warm * 2:
        await _seconds(backend, "acme", text)
    for place in range(count):
        # A tenant asks for each text once: at the second time it would meet itself.
        who = f"globex-{place // WARM}" if abroad else "acme"
        for kind in texts.rng.sample((0, 1), 2):
            text = texts.new() if kind else warm[place % WARM]
            times[kind].append(await _seconds(backend, who, text))
    return times


_ids = itertools.count()


def request(tenant: str, prompt: Tokens) -> GenerateRequest:
    return GenerateRequest(f"r{next(_ids)}", prompt, tenant, max_tokens=1, ignore_eos=True)


async def _seconds(backend: EmbeddedBackend, tenant: str, prompt: Tokens) -> float:
    began, first = time.perf_counter(), 0.0
    async for _ in backend.generate(request(tenant, prompt)):
        first = first or time.perf_counter() - began
    return first


# Without a clock: the engine's steps are counted, which shows what no noise can hide.


@dataclass
class Turns:
    """Requests of one tenant at the same moment, a warm and a fresh one in either order."""

    out_of_turn: int
    """Pairs in which the one that was sent later was answered first."""
    behind: Times
    """Steps until the answer to a third, fresh text that was sent behind each of them."""


def pairs(
    stepped: Engine, texts: Texts, count: int, *, abroad: bool, order: Order | None = None
) -> Turns:
    warm, out_of_turn = texts.some(WARM), 0
    for text in warm * 2:
        _steps(stepped, [request("acme", text)])
    if order is not None:
        order(stepped)
    behind: Times = ([], [])
    for place in range(count):
        who = f"globex-{place // WARM}" if abroad else "acme"
        kinds = texts.rng.sample((0, 1), 2)
        both = [request(who, texts.new() if kind else warm[place % WARM]) for kind in kinds]
        steps = _steps(stepped, both)
        out_of_turn += steps[both[0].id] > steps[both[1].id]
        kind = place % 2
        other = f"initech-{place // WARM}" if abroad else "acme"
        ahead = request(other, texts.new() if kind else warm[place % WARM])
        third = request(other, texts.new())
        behind[kind].append(_steps(stepped, [ahead, third])[third.id])
    return Turns(out_of_turn, behind)


Order = Callable[[Engine], None]


def longest_match_first(stepped: Engine) -> None:
    """A scheduler as others have it: what most is kept of goes first, whoever it was computed for."""
    queue, shelves = stepped._admission.queue, stepped._prompts._shelves
    plain = queue.candidates

    def kept(job: Job) -> int:
        begun = {entry.tokens[:64] for shelf in shelves.values() for entry in shelf}
        return job.request.prompt[:64] in begun

    def candidates(now: float) -> Iterator[Job]:
        yield from sorted(plain(now), key=kept, reverse=True)

    queue.candidates = candidates  # type: ignore[method-assign]


def _steps(stepped: Engine, requests: list[GenerateRequest]) -> dict[str, int]:
    """In which step each of them was answered."""
    for each in requests:
        stepped.submit(each, 0.0)
    answered: dict[str, int] = {}
    for step in itertools.count():
        answered |= {event.id: step for event in stepped.step(0.0) if isinstance(event, Chunk)}
        if len(answered) == len(requests):
            return answered
    raise AssertionError
