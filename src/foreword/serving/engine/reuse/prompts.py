"""`PromptCache`: keys and values of a prompt's beginning, used again by the same tenant.

Reused is what was computed for the same tenant, base and adapter set, and nothing else: each tenant has
a shelf of its own, the key of an entry begins with all three, and tokens are compared one by one before
an entry is used; equal hashes alone prove nothing. The payload is opaque here: keys and values of the
first L tokens of some prompt, from which the caller copies the first `tokens` before its next call.

What is stored. A prompt that comes once is worth nothing, so nothing is stored for the first sight of
it. Of each later prompt the part is stored that an earlier one began with as well (a system prompt, the
turns of a conversation so far), found by blocks of 32 tokens, if more of it was seen than is stored. An
entry takes the place of those that it continues: it serves their beginnings too.

What goes, least recently used first. A tenant that is over its `share` of the budget gives up its own.
When the whole budget is used, an entry of another tenant goes only while that tenant holds more bytes
than the one that stores will. So a tenant that holds no more than an even part loses nothing to others,
whatever they send. What remains visible across tenants is that much: who holds more than an even part
may notice by its own misses that others began to store. Without that, a fixed part for each
tenant would lie idle most of the time.

One thread uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic

from foreword.artifact import Digest
from foreword.errors import ConfigError, EngineFailed
from foreword.serving.contract import AdapterSet
from foreword.serving.engine.reuse import chains
from foreword.serving.engine.reuse.chains import BLOCK
from foreword.serving.engine.reuse.shelf import Entry, Payload, Shelf
from foreword.serving.engine.reuse.sightings import Sightings

_TENANTS_WATCHED = 4096
"""Of more tenants, the sightings of the one that came least recently are forgotten, not its entries."""


@dataclass(frozen=True)
class ReuseStats:
    """Counts since the start; `entries` and `nbytes` are of now."""

    entries: int
    nbytes: int
    budget: int
    lookups: int
    hits: int
    reused_tokens: int
    stored: int
    removed: int
    """Evicted, dropped, or replaced by a longer one."""


class PromptCache(Generic[Payload]):
    """Beginnings of prompts on one base, within a budget of bytes.

    Raises:
        ConfigError: the budget is below zero or the share is not above 0 and at most 1.
    """

    def __init__(self, base: Digest, budget: int, share: float = 0.25) -> None:
        if budget < 0 or not 0 < share <= 1:
            raise ConfigError(
                "expected a prompt cache budget of 0 bytes or more and a share above 0 and at most 1, "
                f"got {budget} and {share}",
                code="config.prompt_cache",
            )
        self.base = base
        self.budget = budget
        self.cap = int(budget * share)
        """Bytes that one tenant may hold."""
        self._used = 0
        self._shelves: dict[str, Shelf[Payload]] = {}
        self._sightings: dict[str, Sightings] = {}  # the tenant seen last is at the end
        self._lookups = self._hits = self._reused_tokens = self._stored = self._removed = 0

    def lookup(
        self, tenant: str, adapters: AdapterSet, prompt: tuple[int, ...]
    ) -> tuple[int, Payload | None]:
        """How many first tokens of the prompt are stored, and the payload that begins with them.

        At most all but the last token, which has to be run for its logits.
        """
        self._lookups += 1
        shelf = self._shelves.get(tenant)
        if shelf is None:
            return 0, None
        chain = chains.links(tenant, self.base, adapters, prompt)
        tokens, entry = shelf.find(adapters, prompt, chain)
        if entry is None:
            return 0, None
        shelf.touch(entry)
        tokens = min(tokens, len(prompt) - 1)
        self._hits += 1
        self._reused_tokens += tokens
        return tokens, entry.payload

    def store(
        self,
        tenant: str,
        adapters: AdapterSet,
        prompt: tuple[int, ...],
        make: Callable[[int], Payload],
        token_bytes: int,
    ) -> int:
        """Tell of a prompt that was computed, and store its beginning if that is worth it.

        Args:
            make: gives the payload for that many first tokens. It is called at most once, after room
                was made; what it raises comes out, and then nothing is stored.
            token_bytes: bytes of one token's keys and values.

        Returns:
            How many tokens were stored; most often none.

        Raises:
            EngineFailed: a token has no bytes.
        """
        if token_bytes < 1:
            raise EngineFailed(
                f"expected 1 byte a token or more, got {token_bytes}", code="serving.cache"
            )
        chain = chains.links(tenant, self.base, adapters, prompt)
        chain = chain[: self._seen_before(tenant, chain)]
        tokens = len(chain) * BLOCK
        shelf = self._shelves.get(tenant) or Shelf[Payload]()
        if tokens <= shelf.find(adapters, prompt, chain)[0]:
            return 0
        victims = self._victims(tenant, shelf, chain, tokens * token_bytes)
        if victims is None:
            return 0
        for holder, entry in victims:
            self._let_go(holder, entry)
        payload = make(tokens)
        shelf.add(Entry(adapters, prompt[:tokens], chain, payload, tokens * token_bytes))
        self._shelves[tenant] = shelf
        self._used += tokens * token_bytes
        self._stored += 1
        return tokens

    def drop(self, adapters: AdapterSet) -> int:
        """Let go what was computed with an adapter set, of all tenants; returns how many entries."""
        gone = [
            (tenant, entry)
            for tenant, shelf in self._shelves.items()
            for entry in shelf
            if entry.adapters == adapters
        ]
        for tenant, entry in gone:
            self._let_go(tenant, entry)
        return len(gone)

    def drop_tenant(self, tenant: str) -> int:
        """Let go all that is known of a tenant; returns how many entries."""
        self._sightings.pop(tenant, None)
        shelf = self._shelves.pop(tenant, None)
        if shelf is None:
            return 0
        self._used -= shelf.nbytes
        self._removed += len(shelf)
        return len(shelf)

    def by_tenant(self) -> dict[str, int]:
        """Bytes of every tenant that holds any."""
        return {tenant: shelf.nbytes for tenant, shelf in self._shelves.items()}

    def stats(self) -> ReuseStats:
        return ReuseStats(
            entries=sum(map(len, self._shelves.values())),
            nbytes=self._used,
            budget=self.budget,
            lookups=self._lookups,
            hits=self._hits,
            reused_tokens=self._reused_tokens,
            stored=self._stored,
            removed=self._removed,
        )

    def check_integrity(self) -> None:
        """Check every shelf and every limit, and make every key again.

        Raises:
            EngineFailed: something is not as it must be.
        """
        for tenant, shelf in self._shelves.items():
            shelf.check_integrity()
            keyed = all(
                entry.chain == chains.links(tenant, self.base, entry.adapters, entry.tokens)
                for entry in shelf
            )
            if not keyed or not 0 < shelf.nbytes <= self.cap:
                raise EngineFailed(
                    f"tenant {tenant[:80]!r} holds {len(shelf)} stored beginnings of {shelf.nbytes} "
                    f"bytes, allowed are {self.cap}; keys are right: {keyed}",
                    code="serving.cache",
                )
        total = sum(shelf.nbytes for shelf in self._shelves.values())
        if total != self._used or total > self.budget:
            raise EngineFailed(
                f"stored beginnings have {total} bytes, counted are {self._used} of {self.budget}",
                code="serving.cache",
            )

    def _seen_before(self, tenant: str, chain: tuple[bytes, ...]) -> int:
        """How many blocks of this prompt an earlier one began with; it is remembered from now on."""
        seen = self._sightings.pop(tenant, None) or Sightings()
        self._sightings[tenant] = seen
        if len(self._sightings) > _TENANTS_WATCHED:
            del self._sightings[next(iter(self._sightings))]
        count = seen.known(chain)
        seen.note(chain)
        return count

    def _victims(
        self, tenant: str, shelf: Shelf[Payload], chain: tuple[bytes, ...], nbytes: int
    ) -> list[tuple[str, Entry[Payload]]] | None:
        """Who has to go for `nbytes` of this tenant; None if they may not be stored at all."""
        victims = [(tenant, entry) for entry in shelf.on_the_way(chain)]
        replaced = {id(entry) for _, entry in victims}
        gained = nbytes - sum(entry.nbytes for _, entry in victims)
        held = self.by_tenant()
        held[tenant] = shelf.nbytes + gained
        used = self._used + gained
        queues: dict[str, Iterator[Entry[Payload]]] = {
            tenant: (entry for entry in shelf if id(entry) not in replaced)
        }
        while held[tenant] > self.cap or used > self.budget:
            holder = _largest(held, tenant)  # who is over the cap holds most: nobody else is
            queue = queues.setdefault(holder, iter(self._shelves.get(holder, ())))
            entry = next(queue, None)
            if entry is None:
                return None
            victims.append((holder, entry))
            held[holder] -= entry.nbytes
            used -= entry.nbytes
        return victims

    def _let_go(self, tenant: str, entry: Entry[Payload]) -> None:
        shelf = self._shelves[tenant]
        shelf.remove(entry)
        self._used -= entry.nbytes
        self._removed += 1
        if not shelf:
            del self._shelves[tenant]


def _largest(held: dict[str, int], tenant: str) -> str:
    """Who holds most; of equals `tenant`, which then gives up its own."""
    return max(held, key=lambda holder: (held[holder], holder == tenant))
