"""`Shelf`: one tenant's stored beginnings, least recently used first.

Nothing here knows another tenant, so no key, however made, can lead to one's entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from foreword.errors import EngineFailed
from foreword.serving.contract import AdapterSet
from foreword.serving.engine.reuse.chains import BLOCK

Payload = TypeVar("Payload")


@dataclass(frozen=True, eq=False)
class Entry(Generic[Payload]):
    """Keys and values of `tokens`, and the link after each of their blocks."""

    adapters: AdapterSet
    tokens: tuple[int, ...]
    chain: tuple[bytes, ...]
    payload: Payload
    nbytes: int

    def begins(self, adapters: AdapterSet, prompt: tuple[int, ...], tokens: int) -> bool:
        """True if the first `tokens` of the prompt are its own first ones. No hash is asked."""
        return self.adapters == adapters and self.tokens[:tokens] == prompt[:tokens]


class Shelf(Generic[Payload]):
    """Entries by the link of their last block, and by every link on the way there."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._entries: dict[bytes, Entry[Payload]] = {}  # least recently used first
        self._through: dict[bytes, dict[bytes, Entry[Payload]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry[Payload]]:
        """Least recently used first."""
        return iter(list(self._entries.values()))

    def find(
        self, adapters: AdapterSet, prompt: tuple[int, ...], chain: Sequence[bytes]
    ) -> tuple[int, Entry[Payload] | None]:
        """The entry that shares most blocks with the prompt, and how many tokens those are."""
        for blocks in range(self._known(chain), 0, -1):
            for entry in self._through[chain[blocks - 1]].values():
                if entry.begins(adapters, prompt, blocks * BLOCK):
                    return blocks * BLOCK, entry
        return 0, None

    def touch(self, entry: Entry[Payload]) -> None:
        """An entry was used just now."""
        self._entries[entry.chain[-1]] = self._entries.pop(entry.chain[-1])

    def on_the_way(self, chain: Sequence[bytes]) -> list[Entry[Payload]]:
        """Entries that end at a link of this chain."""
        return [entry for link in chain if (entry := self._entries.get(link))]

    def add(self, entry: Entry[Payload]) -> None:
        """Take in an entry, as the one used last; none with its key may be here."""
        key = entry.chain[-1]
        self._entries[key] = entry
        self.nbytes += entry.nbytes
        for link in entry.chain:
            self._through.setdefault(link, {})[key] = entry

    def remove(self, entry: Entry[Payload]) -> None:
        """Let an entry go."""
        key = entry.chain[-1]
        del self._entries[key]
        self.nbytes -= entry.nbytes
        for link in entry.chain:
            del self._through[link][key]
            if not self._through[link]:
                del self._through[link]

    def check_integrity(self) -> None:
        """Build the index and the total again from the entries.

        Raises:
            EngineFailed: they are not what is kept.
        """
        through: dict[bytes, dict[bytes, Entry[Payload]]] = {}
        for key, entry in self._entries.items():
            for link in entry.chain:
                through.setdefault(link, {})[key] = entry
        nbytes = sum(entry.nbytes for entry in self._entries.values())
        if through != self._through or nbytes != self.nbytes:
            raise EngineFailed(
                f"{len(self)} stored beginnings have {nbytes} bytes and {len(through)} links, kept are "
                f"{self.nbytes} and {len(self._through)}",
                code="serving.cache",
            )

    def _known(self, chain: Sequence[bytes]) -> int:
        for count, link in enumerate(chain):
            if link not in self._through:
                return count
        return len(chain)
