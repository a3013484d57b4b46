"""Requests as the toy's users send them: a few names are asked for most, some beginnings are shared."""

from __future__ import annotations

import random
from collections import deque

from foreword.artifact import Digest
from foreword.serving.contract import BARE as NO_PREFIX
from foreword.serving.contract import AdapterSet, GenerateRequest, Sampling
from tests.reliability.marked import BARE, MARKERS, spelling, token
from tests.reliability.marked_source import Catalogue, Version

TENANTS = 20
_SYSTEM_PROMPTS = (32, 40, 70)
"""Tokens of the beginnings that many prompts share."""


class Traffic:
    """Makes requests; a name is resolved when its request is made, which keeps that version."""

    def __init__(self, catalogue: Catalogue, skew: float, rng: random.Random) -> None:
        """`skew` is Zipf's, by which names are asked for."""
        self._catalogue = catalogue
        self._weights = [1 / (rank + 1) ** skew for rank in range(len(catalogue.current))]
        self._beginnings = [
            [_words(rng, length, voice) for length in _SYSTEM_PROMPTS] for voice in (0, 1)
        ]
        self.old: deque[Version] = deque(maxlen=200)
        """Versions that a name stood for; some users still ask for them."""
        self._count = 0

    def number(self, rng: random.Random) -> int:
        """Of a name, as often as users ask for it."""
        return rng.choices(range(len(self._weights)), self._weights)[0]

    def forced(self, request: GenerateRequest) -> int:
        """The only right token."""
        digest = request.adapters.prefix
        version = self._catalogue.versions.get(digest) if digest else None
        return token(version.marker if version else BARE, request.prompt[-1] % 2)

    def request(self, rng: random.Random, now: float) -> GenerateRequest:
        self._count += 1
        voice, digest = rng.randrange(2), self._digest(rng)
        version = self._catalogue.versions.get(digest) if digest else None
        forced = token(version.marker if version else BARE, voice)
        tenant = 0 if rng.random() < 0.4 else rng.randrange(TENANTS)
        return GenerateRequest(
            id=f"r{self._count}",
            prompt=_prompt(rng, self._beginnings[voice], voice),
            tenant=f"t{tenant}",
            adapters=AdapterSet(digest) if digest else NO_PREFIX,
            max_tokens=rng.randint(2, 6),
            sampling=_sampling(rng),
            stop=_stop(rng, forced),
            stop_ids=(forced,) if rng.random() < 0.02 else (),
            n=rng.choice((1, 1, 1, 1, 1, 1, 2, 3)),
            logprobs=2 if rng.random() < 0.05 else None,
            deadline=now + rng.expovariate(2.0) if rng.random() < 0.05 else None,
            priority=rng.choice((0, 0, 0, 5)),
        )

    def _digest(self, rng: random.Random) -> Digest | None:
        kind = rng.random()
        if kind < 0.1:
            return None
        if kind < 0.11:
            return Digest.of(rng.randbytes(8))  # of nothing that was ever published
        if kind < 0.18 and self.old:
            return rng.choice(self.old).digest
        return self._catalogue.current[self.number(rng)].digest


def _words(rng: random.Random, length: int, voice: int) -> tuple[int, ...]:
    return tuple(token(rng.randrange(MARKERS), voice) for _ in range(length))


def _prompt(rng: random.Random, beginnings: list[tuple[int, ...]], voice: int) -> tuple[int, ...]:
    shared = rng.choices(beginnings, (4, 1, 1))[0] if rng.random() < 0.5 else ()
    return shared + _words(rng, rng.randint(1, 10), voice)


def _sampling(rng: random.Random) -> Sampling:
    """Whatever is asked for, the forced token stays the only likely one."""
    kind = rng.random()
    if kind < 0.6:
        return Sampling()
    if kind < 0.8:
        return Sampling(temperature=0.7, seed=rng.randrange(2**32))
    return Sampling(temperature=1.0, top_p=0.9, top_k=5, presence_penalty=0.5)


def _stop(rng: random.Random, forced: int) -> tuple[str, ...]:
    """Mostly nothing; else a text across two tokens of the answer, or one that never comes."""
    kind = rng.random()
    if kind < 0.9:
        return ()
    return ((spelling(forced) * 2)[3:9] if kind < 0.95 else spelling(forced ^ 2),)
