"""What a run under load came to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foreword.client.load.plan import Plan
from foreword.client.load.run import Outcome, Ran

_EXAMPLES = 5
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Figures:
    """Latencies are of answered requests, in milliseconds, from the moment a request was due."""

    seconds: float
    """To the end of the last request."""
    requests: int
    unsent: int
    """Due, but without a free place before the time was over."""
    answered: int
    tokens: int
    requests_per_second: float
    """Answered ones."""
    tokens_per_second: float
    latency_ms: Mapping[str, Mapping[str, float]]
    """`whole` and `stream`: p50, p90, p99, max."""
    first_token_ms: Mapping[str, float]
    """Of streams."""
    errors: Mapping[str, int]
    """By code."""
    fallbacks: int
    """Something else answered than was asked for, and said so."""
    wrong_receipts: int
    """Something else answered than was asked for, or one version had two digests."""
    wrong: tuple[str, ...]
    """The first of them."""
    by_model: Mapping[str, int]

    def to_json(self, plan: Plan) -> dict[str, Any]:
        return {"plan": asdict(plan), **asdict(self)}


def figures(ran: Ran) -> Figures:
    outcomes = ran.outcomes
    answered = [each for each in outcomes if not each.code]
    seconds = max((each.ended for each in outcomes), default=0.0)
    tokens = sum(each.tokens for each in answered)
    wrong = [f"{each.model}: {each.wrong}" for each in answered if each.wrong]
    wrong += _two_digests(answered)
    by_kind = {
        "whole": [each.seconds for each in answered if not each.stream],
        "stream": [each.seconds for each in answered if each.stream],
    }
    firsts = [each.first_token for each in answered if each.first_token is not None]
    return Figures(
        seconds=seconds,
        requests=len(outcomes),
        unsent=ran.unsent,
        answered=len(answered),
        tokens=tokens,
        requests_per_second=len(answered) / seconds if seconds else 0.0,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        latency_ms={kind: _spread(values) for kind, values in by_kind.items() if values},
        first_token_ms=_spread(firsts) if firsts else {},
        errors=dict(Counter(each.code for each in outcomes if each.code).most_common()),
        fallbacks=sum(bool(each.receipt and each.receipt.wanted) for each in answered),
        wrong_receipts=len(wrong),
        wrong=tuple(wrong[:_EXAMPLES]),
        by_model=dict(Counter(each.model for each in outcomes).most_common()),
    )


def _two_digests(answered: Iterable[Outcome]) -> list[str]:
    """A version is one digest, whoever asks and whenever."""
    first: dict[tuple[str | None, str | None], str | None] = {}
    wrong = []
    for each in answered:
        if (said := each.receipt) is not None:
            known = first.setdefault((said.prefix, said.version), said.digest)
            if known != said.digest:
                wrong.append(
                    f"{each.model}: {said.prefix}@{said.version} is {known} and {said.digest}"
                )
    return wrong


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Nearest rank: each figure is one that was measured."""
    ranked = sorted(seconds)
    return {
        name: 1e3 * ranked[max(1, math.ceil(share * len(ranked))) - 1]
        for name, share in _SHARES.items()
    }
