"""Was traffic split as the release says? The first question, before any difference is believed.

Two checks: are there as many keys in each arm as its share says (sample-ratio mismatch), and did each key
get the very version that `Release.pick` gives it, the same at every request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.errors import UsageError
from foreword.evaluation.statistics.distributions import chi_square_tail
from foreword.registry.releases import Release

ALPHA = 0.001
"""Of the mismatch: it is a defect of the set-up and not a finding, so it has to be near certain."""
_WEIGHT = 100.0
"""Of the share that was said, in keys, in the prior of the sequential test."""


@dataclass(frozen=True)
class Ratio:
    """Units per arm against what was said."""

    counts: Mapping[str, int]
    expected: Mapping[str, float]
    chi_square: float
    p: float
    """Pearson's chi-square test, right for one look."""
    p_always: float
    """Valid at any number of looks, if each is given the counts so far (Lindon and Malek 2020)."""
    alpha: float

    @property
    def is_mismatch(self) -> bool:
        return self.p_always <= self.alpha


def sample_ratio(
    counts: Mapping[str, int], shares: Mapping[str, float], *, alpha: float = ALPHA
) -> Ratio:
    """Compare keys per arm, such as `{"stable": 951, "canary": 49}`, with the shares of a release.

    Count keys, not requests: requests of one key are not independent.

    Raises:
        UsageError: other arms than shares, or a share that is not above 0 (`experiment.shares`).
    """
    if set(counts) != set(shares) or len(shares) < 2 or min(shares.values()) <= 0:
        raise UsageError(
            f"expected counts and shares above 0 of the same two arms or more, got {dict(counts)} and "
            f"{dict(shares)}",
            code="experiment.shares",
        )
    arms, whole, n = sorted(shares), sum(shares.values()), sum(counts.values())
    part = {arm: shares[arm] / whole for arm in arms}
    expected = {arm: part[arm] * n for arm in arms}
    square = sum((counts[arm] - expected[arm]) ** 2 / expected[arm] for arm in arms) if n else 0.0
    p = chi_square_tail(square, len(arms) - 1)
    return Ratio(dict(counts), expected, square, p, _p_always(counts, part), alpha)


def _p_always(counts: Mapping[str, int], part: Mapping[str, float]) -> float:
    """One over the Bayes factor of "other shares" (Dirichlet) against "these shares"."""
    n = sum(counts.values())
    log_factor = math.lgamma(_WEIGHT) - math.lgamma(_WEIGHT + n)
    for arm, count in counts.items():
        prior = _WEIGHT * part[arm]
        log_factor += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(part[arm])
    return math.exp(-max(0.0, log_factor))


@dataclass(frozen=True)
class Misplaced:
    """A request whose key got another version than the release gives it."""

    key: str
    got: Digest
    expected: Digest


@dataclass(frozen=True)
class Stickiness:
    """What requests under one release were given."""

    requests: int
    counts: Mapping[str, int]
    """Keys by the arm they got first, for `sample_ratio`."""
    misplaced: tuple[Misplaced, ...]
    """One for each key and version."""
    wavering: tuple[str, ...]
    """Keys that got more than one version."""

    @property
    def is_sound(self) -> bool:
        return not self.misplaced and not self.wavering


def check_sticky(served: Iterable[tuple[str, Digest]], release: Release) -> Stickiness:
    """Compare what keys were given (key and digest of each request) with what `release` gives them.

    All requests have to be of the time in which this release held; when its share grows, keys move to
    the canary as they should.
    """
    got: dict[str, dict[Digest, None]] = {}
    requests = 0
    for key, digest in served:
        got.setdefault(key, {})[digest] = None
        requests += 1
    picks = {key: release.pick(key) for key in got}
    misplaced = tuple(
        Misplaced(key, digest, picks[key].digest)
        for key, digests in got.items()
        for digest in digests
        if digest != picks[key].digest
    )
    counts = {"stable": 0, "canary": 0}
    for digests in got.values():
        first = next(iter(digests))
        if first in (release.stable, release.canary):
            counts["canary" if first == release.canary else "stable"] += 1
    wavering = tuple(key for key, digests in got.items() if len(digests) > 1)
    return Stickiness(requests, counts, misplaced, wavering)
