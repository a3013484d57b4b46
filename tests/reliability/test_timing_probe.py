"""R17: how long something takes tells a tenant nothing about what others sent."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from foreword.artifact import Digest
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.serving.contract import BARE, AdapterSet
from foreword.serving.engine.reuse.chains import BLOCK, links, root
from foreword.serving.gateway.tokens import Encoder
from tests.reliability.auc import auc, bound
from tests.reliability.isolation import NOBODYS_DIGEST, chat
from tests.reliability.many_tenants import Caller, Resident, Server, Town, build, serving
from tests.reliability.report import LONG, Goals
from tests.reliability.timing_probe import (
    Texts,
    engine,
    first_tokens,
    longest_match_first,
    pairs,
    running,
    small_base,
)

pytestmark = pytest.mark.reliability("R17")

COUNT = 4_000 if LONG else 100
"""Probes of each kind. The plan asks for 2,000, of which 1 run in 1,000 would miss 0.53 by chance."""
HOME = 500 if LONG else 40
MOST = 0.53
LEAST = 0.95 if LONG else 0.8
"""The sample has to bite on a busy machine, too."""
TRIES = 3
"""The probe at home may be repeated if the machine was too busy to see anything."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return small_base()


# Keys and values of prompts.


def test_first_tokens_do_not_tell_what_others_sent(goals: Goals, base: BaseModel) -> None:
    texts = Texts(600, 128)
    with running(base) as backend:
        _probe(goals, "time to the first token", COUNT, HOME,
               lambda n, abroad: auc(*first_tokens(backend, texts, n, abroad=abroad)))  # fmt: skip


def _probe(
    goals: Goals, what: str, count: int, at_home: int, area: Callable[[int, bool], float],
    least: float = LEAST,
) -> None:  # fmt: skip
    home = max(_until_seen(at_home, area, least))
    goals.goal(f"{what}: the probe sees what its own tenant sent, area at least {least}", value=home,
               passed=home >= least, count=2 * at_home)  # fmt: skip
    found, most = area(count, True), bound(count, MOST)
    goals.goal(f"{what}: it does not see what another one sent, area at most {most:.3f}",
               value=found, passed=found <= most, count=2 * count)  # fmt: skip


def _until_seen(count: int, area: Callable[[int, bool], float], least: float) -> Iterator[float]:
    for _ in range(TRIES):
        yield (found := area(count, False))
        if found >= least:
            return


@pytest.mark.real
@pytest.mark.skipif(not LONG, reason="minutes of a real model: in the long run only")
def test_first_tokens_of_a_real_model_do_not_tell_it_either(goals: Goals) -> None:
    base = load_base(demo_base())
    texts = Texts(160, 40_000)
    with running(base) as backend:
        _probe(goals, "time to the first token, SmolLM2-135M", 300, 50,
               lambda n, abroad: auc(*first_tokens(backend, texts, n, abroad=abroad)))  # fmt: skip


def test_the_order_of_answers_does_not_tell_it(goals: Goals, base: BaseModel) -> None:
    texts, count = Texts(260, 128), 2_000 if LONG else 40
    found = pairs(engine(base), texts, count, abroad=True)
    goals.goal("of two requests at once, one that another tenant sent before: answered out of turn",
               value=found.out_of_turn, passed=not found.out_of_turn, count=count)  # fmt: skip
    told = auc(*found.behind)
    goals.goal("steps until the answer behind a text that another tenant sent: area is 0.5",
               value=told, passed=told == 0.5, count=count)  # fmt: skip
    home = auc(*pairs(engine(base), texts, 40, abroad=False).behind)
    goals.goal(f"steps until the answer behind a text of its own: area at least {LEAST}",
               value=home, passed=home >= LEAST, count=40)  # fmt: skip


def test_a_scheduler_that_prefers_what_is_kept_is_found_out(goals: Goals, base: BaseModel) -> None:
    texts, count = Texts(260, 128), 40
    found = pairs(engine(base), texts, count, abroad=True, order=longest_match_first)
    goals.goal("planted scheduler by longest match: pairs answered out of turn are found",
               value=found.out_of_turn, passed=found.out_of_turn > count // 4, count=count)  # fmt: skip


# Words that the tokenizer keeps.


@pytest.mark.real
def test_the_tokenizer_does_not_tell_which_words_came_before(goals: Goals) -> None:
    spoken = AutoTokenizer.from_pretrained(demo_base())
    ours = Encoder(spoken).encode
    count = 4_000 if LONG else 400
    _probe(goals, "time to take a text of 200 words apart", count, 200,
           lambda n, abroad: _words(n, lambda: ours if abroad else _remembering(spoken)), 0.7)  # fmt: skip


Encode = Callable[[str], object]


def _remembering(spoken: PreTrainedTokenizerBase) -> Encode:
    """As the library comes: what somebody wrote is quicker for the next one. It begins empty."""
    spoken.backend_tokenizer.model._clear_cache()
    encode: Encode = spoken.backend_tokenizer.encode
    return encode


def _words(count: int, begin: Callable[[], Encode]) -> float:
    rng = random.Random(17)

    def text() -> str:
        return " ".join("".join(rng.choices("abcdefghijklmnop", k=9)) for _ in range(200))

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(count // 20):  # the library keeps 10,000 words
        encode = begin()
        warm, fresh = [text() for _ in range(20)], [text() for _ in range(20)]
        for each in warm:
            encode(each)
        for both in zip(warm, fresh, strict=True):
            for kind in rng.sample((0, 1), 2):
                began = time.thread_time()
                encode(both[kind])
                times[kind].append(time.thread_time() - began)
    return auc(*times)


# Prefixes in memory.


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return build(tmp_path_factory.mktemp("town"), 4)


@pytest.fixture(scope="module")
def server(town: Town) -> Iterator[Server]:
    room_for_two = ("embedded.prefix_bytes=3500", "embedded.disk_bytes=0")
    with serving(town, settings=room_for_two) as started:
        yield started


def test_time_does_not_tell_whose_prefixes_are_loaded(
    goals: Goals, town: Town, server: Server
) -> None:
    owner, who, count = town.tenants[3], town.tenants[0], 4_000 if LONG else 500
    _probe(goals, "prefix in memory", count, 40,
           lambda n, abroad: _strangers(server, owner, who, n) if abroad else _own(server, owner, n)
           )  # fmt: skip


def _strangers(server: Server, owner: Resident, who: Resident, count: int) -> float:
    """What is loaded and what is not, both somebody else's; in between the owner uses the one."""
    asked, loads = server.caller(who), server.caller(owner)
    names, rng = (owner.own, owner.state), random.Random(17)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(count):
        if turn % 50 == 0:
            _seconds(loads, owner.own, 200)
        for kind in rng.sample((0, 1), 2):
            times[kind].append(_seconds(asked, names[kind], 404))
    assert _seconds(asked, NOBODYS_DIGEST, 404)
    return auc(*times)


def _own(server: Server, owner: Resident, count: int) -> float:
    """What it used just before, and what two others have pushed out since."""
    caller = server.caller(owner)
    names = (owner.own, f"{owner.state}@1.0.0", f"{owner.state}@2.0.0")
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(count):
        name = names[turn % len(names)]
        times[1].append(_seconds(caller, name, 200))
        times[0].append(_seconds(caller, name, 200))
    return auc(*times)


def _seconds(caller: Caller, model: str, status: int) -> float:
    said = caller.ask("/v1/chat/completions", {**chat(model), "max_tokens": 1})
    assert said.status == status, said.text
    return said.seconds


# Keys of what is kept.


def test_no_two_different_things_have_one_key(goals: Goals) -> None:
    count = 10_000_000 if LONG else 100_000
    equal = _equal((_key(*each) for each in things(count)), count)
    goals.goal("tenants, bases, adapters and prompts written alike: equal keys", value=equal,
               passed=equal == 0, count=count)  # fmt: skip
    naive = _equal((_run_together(*each) for each in things(20_000)), 20_000)
    goals.goal("the same, run together without tags and lengths: equal keys are found", value=naive,
               passed=naive > 0, count=20_000)  # fmt: skip


Thing = tuple[str, Digest, AdapterSet, tuple[int, ...]]
_ALPHABET = ("a", "b", "aa", "S", "D", "N", "\0", "\1", "prefix", "/", "B", "R")
"""Pieces of tenants' names that look like what a key is put together from."""


def things(count: int) -> Iterator[Thing]:
    """`count` different ones in random order of their parts; many differ only in where a part ends."""
    rng = random.Random(17)
    digests = [Digest.of(bytes([n])) for n in range(4)]
    names = list(dict.fromkeys(_names(count // 16 + 1)))
    rng.shuffle(names)
    for name, base, prefix in itertools.islice(
        itertools.product(names, digests, (None, *digests[:3])), count
    ):
        yield name, base, AdapterSet(prefix), tuple(rng.choices(range(5), k=BLOCK))


def _names(count: int) -> Iterator[str]:
    found: set[str] = set()
    for length in itertools.count():
        for parts in itertools.product(_ALPHABET, repeat=length):
            name = "".join(parts)
            if name not in found:
                found.add(name)
                yield name
                if len(found) == count:
                    return


def _key(tenant: str, base: Digest, adapters: AdapterSet, prompt: tuple[int, ...]) -> bytes:
    return links(tenant, base, adapters, prompt)[-1]


def _run_together(
    tenant: str, base: Digest, adapters: AdapterSet, prompt: tuple[int, ...]
) -> bytes:
    """As caches often do it: a tenant "Xprefix" with nothing is a tenant "X" with a prefix."""
    tail = "" if adapters.prefix is None else "prefix"
    return Digest.of(f"{tenant}{tail}{base.hex}".encode()).hex.encode()


def _equal(keys: Iterator[bytes], count: int) -> int:
    """How many come again. Their first 8 bytes are compared: of 10 million that are random 3 in a
    million such samples have an equal pair by chance."""
    first = np.fromiter((int.from_bytes(key[:8], "big") for key in keys), np.uint64, count)
    first.sort()
    return int((first[1:] == first[:-1]).sum())


def test_a_name_is_not_taken_for_another_kind_of_name(goals: Goals) -> None:
    """vLLM issue 44701: an adapter named X and a salt X gave one cache key."""
    base, digest = Digest.of(b"base"), Digest.of(b"X")
    alike: Sequence[tuple[bytes, bytes]] = [
        (root(str(digest), base, BARE), root("", base, AdapterSet(digest))),
        (root(digest.hex, base, BARE), root("", base, AdapterSet(digest))),
        (root("", digest, AdapterSet(base)), root("", base, AdapterSet(digest))),
        (root("acme", base, BARE), root("acme", digest, BARE)),
        (root("X", base, BARE), root("", base, BARE)),
        (root("Nprefix", base, BARE), root("N", base, AdapterSet(digest))),
        (root("a", base, BARE), root("a\0", base, BARE)),
    ]
    same = sum(one == other for one, other in alike)
    goals.goal("pairs of a kind that others confuse (vLLM 44701): equal keys", value=same,
               passed=same == 0, count=len(alike))  # fmt: skip
