"""What is reused was computed for the same tenant, base, adapters and tokens, and for nobody else."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.artifact import Digest
from foreword.errors import ConfigError, EngineFailed
from foreword.serving.contract import BARE, AdapterSet
from foreword.serving.engine.reuse import chains
from foreword.serving.engine.reuse.chains import BLOCK
from foreword.serving.engine.reuse.prompts import PromptCache
from foreword.serving.engine.reuse.sightings import Sightings

BASE = Digest.of(b"a base")
ADAPTERS = tuple(AdapterSet(Digest.of(bytes([n]))) for n in range(2))
BYTE = 1
"""Of a token, so that sizes read as tokens."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """Says what it was computed for, so that a wrong reuse shows."""

    tenant: str
    adapters: AdapterSet
    tokens: Tokens


Cache = PromptCache[Snapshot]


def blocks(*symbols: int, tail: int = 0) -> Tokens:
    """A prompt of one block for each symbol, and a tail."""
    return tuple(s * 1000 + i for s in symbols for i in range(BLOCK)) + tuple(range(tail))


def cache_of(budget: int = 10_000, share: float = 1.0) -> Cache:
    return Cache(BASE, budget, share)


def store(cache: Cache, tenant: str, adapters: AdapterSet, prompt: Tokens) -> int:
    return cache.store(
        tenant, adapters, prompt, lambda n: Snapshot(tenant, adapters, prompt[:n]), BYTE
    )


def store_now(cache: Cache, tenant: str, prompt: Tokens, adapters: AdapterSet = BARE) -> None:
    """Two sightings."""
    store(cache, tenant, adapters, prompt)
    assert store(cache, tenant, adapters, prompt) == len(prompt)
    cache.check_integrity()


# --- what is found -------------------------------------------------------------------------------


def test_a_system_prompt_is_shared_by_prompts_that_differ_behind_it() -> None:
    cache, system = cache_of(), blocks(1, 2, 3)
    assert store(cache, "acme", BARE, system + blocks(4)) == 0
    assert store(cache, "acme", BARE, system + blocks(5, 6)) == len(system)
    tokens, snapshot = cache.lookup("acme", BARE, system + blocks(7, tail=9))
    assert (tokens, snapshot) == (len(system), Snapshot("acme", BARE, system))
    assert cache.lookup("acme", BARE, blocks(1, 2, 9))[0] == 2 * BLOCK


def test_a_conversation_is_reused_from_turn_to_turn_in_one_entry() -> None:
    cache = cache_of()
    turns = [blocks(*range(1, 2 + 2 * turn)) for turn in range(5)]
    found = []
    for prompt in turns:
        found.append(cache.lookup("acme", BARE, prompt)[0] // BLOCK)
        store(cache, "acme", BARE, prompt)
    assert found == [0, 0, 1, 3, 5]  # all but the last two blocks, from the third turn on
    assert cache.stats().entries == 1
    cache.check_integrity()


def test_the_last_token_is_always_run() -> None:
    cache, prompt = cache_of(), blocks(1, 2)
    store_now(cache, "acme", prompt)
    assert cache.lookup("acme", BARE, prompt)[0] == len(prompt) - 1
    assert cache.lookup("acme", BARE, prompt[:BLOCK])[0] == BLOCK - 1
    assert cache.lookup("acme", BARE, prompt[: BLOCK - 1]) == (0, None)
    assert cache.lookup("acme", BARE, ()) == (0, None)


def test_prompts_that_come_once_store_nothing() -> None:
    cache = cache_of()
    stored = [store(cache, "acme", BARE, blocks(n, n + 1, tail=5)) for n in range(0, 200, 2)]
    assert set(stored) == {0}
    assert cache.stats().nbytes == 0


def test_what_is_stored_is_not_made_again() -> None:
    cache, prompt = cache_of(), blocks(1, 2)
    store_now(cache, "acme", prompt)

    def never(tokens: int) -> Snapshot:
        raise AssertionError(tokens)

    for again in (prompt, prompt[:BLOCK], prompt + (7,) * 10):
        assert cache.store("acme", BARE, again, never, BYTE) == 0


# --- for whom ------------------------------------------------------------------------------------


def test_nothing_crosses_tenants_adapters_or_bases() -> None:
    cache, prompt = cache_of(), blocks(1, 2)
    store_now(cache, "acme", prompt, ADAPTERS[0])
    for tenant, adapters in (("globex", ADAPTERS[0]), ("acme", ADAPTERS[1]), ("acme", BARE)):
        assert cache.lookup(tenant, adapters, prompt) == (0, None)
    assert store(cache, "globex", ADAPTERS[0], prompt) == 0, "a sighting is its tenant's own"
    assert chains.root("acme", BASE, BARE) != chains.root("acme", Digest.of(b"other"), BARE)


def test_equal_hashes_alone_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(tenant: str, base: Digest, adapters: AdapterSet, prompt: Tokens) -> tuple[bytes, ...]:
        return tuple(b"%06d" % n for n in range(len(prompt) // BLOCK))

    monkeypatch.setattr(chains, "links", weak)
    cache, prompt = cache_of(), blocks(1, 2, 3)
    store_now(cache, "acme", prompt, ADAPTERS[0])
    assert cache.lookup("acme", ADAPTERS[1], prompt) == (0, None)
    assert cache.lookup("globex", ADAPTERS[0], prompt) == (0, None)
    assert cache.lookup("acme", ADAPTERS[0], blocks(1, 2, 4))[0] == 2 * BLOCK
    assert cache.lookup("acme", ADAPTERS[0], blocks(9, 2, 3)) == (0, None)
    assert store(cache, "acme", ADAPTERS[0], blocks(7, 8, 9)) == 3 * BLOCK
    cache.check_integrity()
    assert cache.lookup("acme", ADAPTERS[0], prompt) == (0, None)


PAIRS: dict[str, tuple[Callable[[], bytes], Callable[[], bytes]]] = {
    "a tenant's end is the next part's beginning": (
        lambda: chains.root("a", BASE, AdapterSet()),
        lambda: chains.root("a" + "N", BASE, AdapterSet()),
    ),
    "no prefix and an empty name": (
        lambda: chains._framed(None),
        lambda: chains._framed(""),
    ),
    "a digest and its text": (
        lambda: chains._framed(BASE),
        lambda: chains._framed(str(BASE)),
    ),
    "a + bc and ab + c": (
        lambda: chains._framed("a") + chains._framed("bc"),
        lambda: chains._framed("ab") + chains._framed("c"),
    ),
    "a name that contains a framed name": (
        lambda: chains._framed("a") + chains._framed("b"),
        lambda: chains._framed("a" + chains._framed("b").decode()),
    ),
    "characters that look alike": (
        lambda: chains._framed("\u00e9"),
        lambda: chains._framed("e\u0301"),
    ),
    "half characters": (
        lambda: chains._framed("\ud800"),
        lambda: chains._framed("\ud801"),
    ),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_different_parts_are_never_written_alike(
    pair: tuple[Callable[[], bytes], Callable[[], bytes]],
) -> None:
    one, other = pair
    assert one() != other()


@dataclass(frozen=True)
class WithLora(AdapterSet):
    """As an adapter set may look when it names more than a prefix."""

    lora: Digest | None = None
    name: str = ""


def test_of_100_000_tagged_tuples_no_two_have_one_root() -> None:
    draw = random.Random(20)
    digests = [Digest(hashlib.sha256(bytes([n])).hexdigest()) for n in range(8)]
    maybe = [None, *digests]
    texts = ["", "N", "S", "D", "\0", "a", "ab", "abc", "b", "bc", "c", "é", "prefix", "lora"]
    tuples = set()
    while len(tuples) < 100_000:
        tenant = "".join(draw.choices(texts, k=draw.randrange(4)))
        name = "".join(draw.choices(texts, k=draw.randrange(3)))
        adapters = WithLora(draw.choice(maybe), draw.choice(maybe), name)
        tuples.add((tenant, draw.choice(digests), adapters))
    roots = {chains.root(tenant, base, adapters) for tenant, base, adapters in tuples}
    assert len(roots) == len(tuples)


def test_an_adapter_of_an_unknown_kind_is_not_left_out_of_the_key() -> None:
    with pytest.raises(EngineFailed) as failure:
        chains.root("acme", BASE, AdapterSet(prefix=7))  # type: ignore[arg-type]
    assert failure.value.code == "serving.cache_key"


def test_one_token_changes_every_link_behind_it_and_none_before() -> None:
    prompt = blocks(1, 2, 3, 4)
    other = (*prompt[: 2 * BLOCK], -1, *prompt[2 * BLOCK + 1 :])
    one, two = (chains.links("acme", BASE, BARE, tokens) for tokens in (prompt, other))
    assert [a == b for a, b in zip(one, two, strict=True)] == [True, True, False, False]


# --- what goes -----------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first() -> None:
    cache = cache_of(budget=2 * BLOCK)
    store_now(cache, "acme", blocks(1))
    store_now(cache, "acme", blocks(2))
    assert cache.lookup("acme", BARE, blocks(1, tail=1))[0] == BLOCK
    store_now(cache, "acme", blocks(3))
    found = [cache.lookup("acme", BARE, blocks(n, tail=1))[0] for n in (1, 2, 3)]
    assert found == [BLOCK, 0, BLOCK]
    assert cache.stats().removed == 1


def test_a_tenant_over_its_share_gives_up_its_own_while_there_is_room() -> None:
    cache = cache_of(budget=8 * BLOCK, share=0.25)
    store_now(cache, "globex", blocks(1))
    for n in range(5):
        store_now(cache, "acme", blocks(n))
    assert cache.by_tenant() == {"globex": BLOCK, "acme": 2 * BLOCK}


def test_a_flood_of_one_tenant_leaves_the_others_what_they_have() -> None:
    cache = cache_of(budget=6 * BLOCK)
    store_now(cache, "globex", blocks(1, 2))
    for n in range(50):
        store_now(cache, "acme", blocks(n + 10))
    assert cache.by_tenant() == {"globex": 2 * BLOCK, "acme": 4 * BLOCK}
    store_now(cache, "globex", blocks(3))
    assert cache.by_tenant() == {"globex": 3 * BLOCK, "acme": 3 * BLOCK}


def test_a_longer_beginning_needs_room_only_for_what_it_adds() -> None:
    cache = cache_of(budget=3 * BLOCK)
    store_now(cache, "acme", blocks(1))
    store_now(cache, "acme", blocks(2))
    store_now(cache, "acme", blocks(2, 3))
    assert cache.lookup("acme", BARE, blocks(1, tail=1))[0] == BLOCK
    assert cache.stats().entries == 2


def test_what_cannot_be_stored_evicts_nobody() -> None:
    cache = cache_of(budget=4 * BLOCK, share=0.75)
    for tenant in ("a", "b"):
        store_now(cache, tenant, blocks(1, 2))
    for prompt in (blocks(1, 2, 3), blocks(1, 2, 3, 4)):  # more than any other; more than the cap
        store(cache, "c", BARE, prompt)
        assert store(cache, "c", BARE, prompt) == 0
    assert cache.by_tenant() == {"a": 2 * BLOCK, "b": 2 * BLOCK}
    assert cache.stats().removed == 0
    assert Cache(BASE, 0).lookup("a", BARE, blocks(1)) == (0, None)


def test_a_copy_that_fails_leaves_nothing_half_stored() -> None:
    cache = cache_of(budget=2 * BLOCK)
    store_now(cache, "acme", blocks(1, 2))

    def fails(tokens: int) -> Snapshot:
        raise MemoryError

    store(cache, "acme", BARE, blocks(3))
    with pytest.raises(MemoryError):
        cache.store("acme", BARE, blocks(3), fails, BYTE)
    cache.check_integrity()
    assert cache.lookup("acme", BARE, blocks(3, tail=1)) == (0, None)
    assert store(cache, "acme", BARE, blocks(3)) == BLOCK
    cache.check_integrity()


def test_a_revoked_prefix_takes_with_it_what_was_computed_with_it() -> None:
    cache, prompt = cache_of(), blocks(1, 2)
    for tenant in ("acme", "globex"):
        for adapters in ADAPTERS:
            store_now(cache, tenant, prompt, adapters)
    assert cache.drop(ADAPTERS[0]) == 2
    assert cache.lookup("acme", ADAPTERS[0], prompt) == (0, None)
    assert cache.lookup("acme", ADAPTERS[1], prompt)[0] == len(prompt) - 1
    assert cache.drop_tenant("acme") == 1
    assert cache.drop_tenant("acme") == 0
    assert cache.by_tenant() == {"globex": len(prompt)}
    assert store(cache, "acme", ADAPTERS[1], prompt) == 0, "its sightings went as well"
    cache.check_integrity()


def test_settings_that_make_no_sense_are_refused() -> None:
    for budget, share in ((-1, 0.5), (1, 0.0), (1, 1.1), (1, float("nan"))):
        with pytest.raises(ConfigError):
            Cache(BASE, budget, share)
    with pytest.raises(EngineFailed):
        cache_of().store("acme", BARE, (), lambda n: Snapshot("acme", BARE, ()), 0)


def test_the_check_finds_wrong_bytes_and_a_wrong_index() -> None:
    for spoil in ("nbytes", "index"):
        cache = cache_of()
        store_now(cache, "acme", blocks(1, 2))
        shelf = cache._shelves["acme"]
        if spoil == "nbytes":
            cache._used += 1
        else:
            shelf._through.popitem()
        with pytest.raises(EngineFailed):
            cache.check_integrity()


# --- sightings -----------------------------------------------------------------------------------


def link(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_sightings_keep_the_recent_and_rarely_claim_the_unseen() -> None:
    seen = Sightings()
    for number in range(20_000):
        seen.note([link(number)])
        if number % 500 == 499:
            assert all(seen.known([link(n)]) for n in range(max(0, number - 4000), number, 97))
    wrong = sum(seen.known([link(-n)]) for n in range(1, 5001))
    assert wrong < 150


def test_only_the_beginning_of_a_chain_counts() -> None:
    seen = Sightings()
    seen.note([link(1), link(2), link(4)])
    assert seen.known([link(1), link(2), link(3), link(4)]) == 2


# --- against a naive cache -----------------------------------------------------------------------

PROMPTS = st.builds(
    lambda symbols, tail: blocks(*symbols, tail=tail),
    st.lists(st.integers(1, 2), max_size=5),
    st.integers(0, 2),
)
TENANTS = st.sampled_from(["a", "b", "ab"])
SETS = st.sampled_from([BARE, *ADAPTERS])


def common(one: Tokens, other: Tokens) -> int:
    """Tokens of the whole blocks that two prompts begin with."""
    count = 0
    while one[count : count + BLOCK] == other[count : count + BLOCK] != ():
        if len(one) < count + BLOCK:
            break
        count += BLOCK
    return count


class AmpleMachine(RuleBasedStateMachine):
    """With room for all: everything worth storing is found, whole and only by whose it is."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(BASE, 10**6)
        self.seen: dict[tuple[str, AdapterSet], list[Tokens]] = {}
        self.kept: dict[tuple[str, AdapterSet], list[Tokens]] = {}

    def best(self, known: list[Tokens], prompt: Tokens) -> int:
        return max((common(tokens, prompt) for tokens in known), default=0)

    @rule(tenant=TENANTS, adapters=SETS, prompt=PROMPTS)
    def store(self, tenant: str, adapters: AdapterSet, prompt: Tokens) -> None:
        seen = self.seen.setdefault((tenant, adapters), [])
        kept = self.kept.setdefault((tenant, adapters), [])
        worth, have = self.best(seen, prompt), self.best(kept, prompt)
        assert store(self.cache, tenant, adapters, prompt) == (worth if worth > have else 0)
        seen.append(prompt)
        if worth > have:
            kept[:] = [tokens for tokens in kept if prompt[: len(tokens)] != tokens]
            kept.append(prompt[:worth])

    @rule(tenant=TENANTS, adapters=SETS, prompt=PROMPTS)
    def lookup(self, tenant: str, adapters: AdapterSet, prompt: Tokens) -> None:
        tokens, snapshot = self.cache.lookup(tenant, adapters, prompt)
        best = self.best(self.kept.get((tenant, adapters), []), prompt)
        assert tokens == max(0, min(best, len(prompt) - 1))
        assert (snapshot is not None) == (tokens > 0)
        if snapshot is not None:
            assert (snapshot.tenant, snapshot.adapters) == (tenant, adapters)
            assert snapshot.tokens[:tokens] == prompt[:tokens]

    @rule(adapters=SETS)
    def drop(self, adapters: AdapterSet) -> None:
        gone = [key for key in self.kept if key[1] == adapters]
        assert self.cache.drop(adapters) == sum(len(self.kept.pop(key)) for key in gone)

    @rule(tenant=TENANTS)
    def drop_tenant(self, tenant: str) -> None:
        for known in (self.seen, self.kept):
            for key in [key for key in known if key[0] == tenant]:
                del known[key]
        self.cache.drop_tenant(tenant)

    @invariant()
    def agrees(self) -> None:
        self.cache.check_integrity()
        entries = [tokens for kept in self.kept.values() for tokens in kept]
        stats = self.cache.stats()
        assert (stats.entries, stats.nbytes) == (len(entries), sum(map(len, entries)))


class TightMachine(RuleBasedStateMachine):
    """With hardly any room: limits hold, and others lose only what is over an even part."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(BASE, 7 * BLOCK, share=0.7)

    @rule(tenant=TENANTS, adapters=SETS, prompt=PROMPTS, twice=st.booleans())
    def store(self, tenant: str, adapters: AdapterSet, prompt: Tokens, twice: bool) -> None:
        for _ in range(1 + twice):
            before = self.cache.by_tenant()
            stored = store(self.cache, tenant, adapters, prompt)
            after = self.cache.by_tenant()
            even = self.cache.budget / len(before.keys() | {tenant})
            for other in before.keys() - {tenant}:
                if after.get(other, 0) < before[other]:
                    assert stored
                    assert before[other] > max(even, after[tenant])
            if stored:
                assert self.cache.lookup(tenant, adapters, prompt)[0] >= stored - 1

    @precondition(lambda self: self.cache.stats().entries)
    @rule(tenant=TENANTS, adapters=SETS, prompt=PROMPTS)
    def lookup(self, tenant: str, adapters: AdapterSet, prompt: Tokens) -> None:
        tokens, snapshot = self.cache.lookup(tenant, adapters, prompt)
        if snapshot is not None:
            assert (snapshot.tenant, snapshot.adapters) == (tenant, adapters)
            assert snapshot.tokens[:tokens] == prompt[:tokens]

    @rule(adapters=SETS)
    def drop(self, adapters: AdapterSet) -> None:
        self.cache.drop(adapters)

    @invariant()
    def holds(self) -> None:
        self.cache.check_integrity()


TestAmpleMachine = AmpleMachine.TestCase
TestAmpleMachine.settings = settings(max_examples=60, stateful_step_count=30)
TestTightMachine = TightMachine.TestCase
TestTightMachine.settings = settings(max_examples=60, stateful_step_count=40)
