"""Series that requests make."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from foreword.telemetry.metrics import closed
from foreword.telemetry.metrics.families import Counts, Spread
from foreword.telemetry.metrics.ranking import Fading, Ranking, Recent
from foreword.telemetry.records import DIGEST_MISMATCH, RequestFinished, RequestRefused

_FIRST_TOKEN = (0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 15.0)
_PER_TOKEN = (0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 2.0)
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Requests:
    """Series that requests make."""

    def __init__(self, top: int) -> None:
        self._ranking = Ranking(top)
        self._reuse = _Reuse()
        self._active, self._tenants = Recent(), Recent()
        self._digests: dict[str, str] = {}
        self._first_token = Spread(
            "prefix_request_ttft_seconds", "Time to the first token.", _FIRST_TOKEN, ["prefix"]
        )
        self._per_token = Spread(
            "prefix_request_tpot_seconds",
            "Time per token after the first, one value a request.",
            _PER_TOKEN,
            ["prefix"],
        )
        self._duration = Spread(
            "prefix_request_duration_seconds",
            "Time from a request's arrival to its end.",
            _WHOLE,
            ["operation", "stream"],
        )
        self._outcomes = Counts(
            "prefix_requests",
            "Requests with a route.",
            {"prefix": closed.ANY, "outcome": closed.OUTCOMES},
        )
        self._tokens = Counts(
            "prefix_tokens",
            "Tokens; cached ones are prompt tokens too.",
            {"prefix": closed.ANY, "kind": closed.KINDS},
        )
        self._responses = Counts(
            "prefix_responses", "Requests by HTTP status.", {"status": closed.STATUSES}
        )
        self._refusals = Counts(
            "prefix_refusals", "Requests without a route.", {"reason": closed.REFUSALS}
        )
        self._auth = Counts(
            "prefix_auth_failures", "Keys that were not believed.", {"reason": closed.AUTH}
        )
        self._fallbacks = Counts(
            "prefix_fallbacks",
            "Answers from another prefix than was asked for.",
            {"reason": closed.FALLBACKS},
        )
        self._mismatches = Counts(
            "prefix_digest_mismatch", "Requests ended because a wrong digest was attached."
        )

    def finished(self, record: RequestFinished, now: float) -> None:
        prefix = self._seat(record, now)
        self._outcomes.add(prefix, closed.outcome(record.status))
        self._responses.add(closed.one_of(closed.STATUSES, str(record.status)))
        self._times(record, prefix)
        self._count_tokens(record, prefix, now)
        self._tenants.note(record.tenant, now)
        if record.fallback:
            self._fallbacks.add(closed.short(closed.FALLBACKS, record.fallback))
        if record.code == DIGEST_MISMATCH:
            self._mismatches.add()

    def refused(self, record: RequestRefused) -> None:
        self._responses.add(closed.one_of(closed.STATUSES, str(record.status)))
        self._refusals.add(closed.one_of(closed.REFUSALS, record.reason))
        if record.reason in closed.AUTH:
            self._auth.add(record.reason)

    def families(self, now: float) -> Iterator[Metric]:
        for each in (self._first_token, self._per_token, self._duration):
            yield each.family()
        for counts in (
            self._outcomes, self._tokens, self._responses, self._refusals, self._auth,
            self._fallbacks, self._mismatches,
        ):  # fmt: skip
            yield counts.family()
        yield self._reuse.family()
        yield self._info()
        yield _gauge("prefix_active", "Versions used in the last 5 min.", self._active.count(now))
        yield _gauge(
            "prefix_tenants_active",
            "Tenants with a request in the last 5 min.",
            self._tenants.count(now),
        )

    def _seat(self, record: RequestFinished, now: float) -> str:
        """The value of the label `prefix`; whoever loses its seat takes its series along."""
        name = closed.version_of(record.attached)
        if name in (closed.BASE, closed.OTHER):
            return name
        self._active.note(name, now)
        if (left := self._ranking.use(name, now)) is not None:
            self._forget(left)
        if name not in self._ranking.seated:
            return closed.OTHER
        self._digests[name] = closed.digest_of(record.attached)
        return name

    def _forget(self, prefix: str) -> None:
        for family in (self._first_token, self._per_token, self._outcomes, self._tokens):
            family.forget(prefix)
        self._reuse.forget(prefix)
        self._digests.pop(prefix, None)

    def _times(self, record: RequestFinished, prefix: str) -> None:
        operation = closed.one_of(closed.OPERATIONS, record.operation)
        stream = "true" if record.stream else "false"
        self._duration.observe(operation, stream, seconds=record.duration)
        if record.first_token is None:
            return
        self._first_token.observe(prefix, seconds=record.first_token)
        if record.status < 400 and record.completion_tokens > 1:
            rest = record.duration - record.first_token
            self._per_token.observe(prefix, seconds=rest / (record.completion_tokens - 1))

    def _count_tokens(self, record: RequestFinished, prefix: str, now: float) -> None:
        self._tokens.add(prefix, "prompt", count=record.prompt_tokens)
        self._tokens.add(prefix, "cached", count=record.cached_tokens)
        self._tokens.add(prefix, "completion", count=record.completion_tokens)
        self._reuse.note(prefix, record.prompt_tokens, record.cached_tokens, now)

    def _info(self) -> Metric:
        family = GaugeMetricFamily(
            "prefix_version_info", "Which digest a version is; always 1.",
            labels=["prefix", "digest"],
        )  # fmt: skip
        for prefix, digest in self._digests.items():
            family.add_metric([prefix, digest], 1)
        return family


class _Reuse:
    """Share of prompt tokens whose keys and values were there already, fading in 10 minutes."""

    def __init__(self) -> None:
        self._fading = Fading(600.0)
        self._sums: dict[str, tuple[float, float]] = {}

    def note(self, prefix: str, prompt: int, cached: int, now: float) -> None:
        if (factor := self._fading.restart(now)) is not None:
            self._sums = {k: (p * factor, c * factor) for k, (p, c) in self._sums.items()}
        if prompt <= 0:
            return
        weight = self._fading.weight(now)
        before = self._sums.get(prefix, (0.0, 0.0))
        cached = min(max(cached, 0), prompt)
        self._sums[prefix] = (before[0] + weight * prompt, before[1] + weight * cached)

    def forget(self, prefix: str) -> None:
        self._sums.pop(prefix, None)

    def family(self) -> Metric:
        family = GaugeMetricFamily(
            "prefix_kv_reuse_ratio", "Share of prompt tokens that were reused, of late.",
            labels=["prefix"],
        )  # fmt: skip
        for prefix, (prompt, cached) in self._sums.items():
            family.add_metric([prefix], cached / prompt if prompt else 0.0)
        return family


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)
