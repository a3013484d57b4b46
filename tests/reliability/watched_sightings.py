"""`Watched`: sightings that also know exactly what they were told, and so when they are wrong.

A Bloom filter may take a link for known that was never noted. Then a beginning is stored when it comes for
the first time, not the second, and the oracle of R15 has to know of every such case to allow no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from foreword.serving.engine.reuse import prompts
from foreword.serving.engine.reuse.sightings import Sightings


class Watched(Sightings):
    """Keeps in `mistaken` every link that it took for known though nobody had noted it."""

    def __init__(self, mistaken: set[bytes]) -> None:
        super().__init__()
        self._mistaken = mistaken
        self._told: set[bytes] = set()

    def known(self, chain: Sequence[bytes]) -> int:
        count = super().known(chain)
        self._mistaken.update(link for link in chain[:count] if link not in self._told)
        return count

    def note(self, chain: Sequence[bytes]) -> None:
        self._told.update(chain)
        super().note(chain)


def watch(patch: pytest.MonkeyPatch) -> set[bytes]:
    """From now on every tenant's sightings are watched; returns the links they were wrong about."""
    mistaken: set[bytes] = set()
    patch.setattr(prompts, "Sightings", lambda: Watched(mistaken))
    return mistaken
