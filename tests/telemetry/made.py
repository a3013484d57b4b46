"""Records as a server makes them."""

from __future__ import annotations

from dataclasses import replace

from foreword.telemetry.records import Attached, PrefixLoaded, RequestFinished, Span

NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z
DIGEST = "sha256:" + "ab" * 32
BASE = "sha256:" + "cd" * 32
SUPPORT = Attached("acme/support", "1.2.0", DIGEST, 16, "stable")
TRACEPARENT = f"00-{'1' * 32}-{'2' * 16}-01"
STEPS = ("resolve", "authorise", "fetch", "verify", "attach", "prefill", "decode")


def finished(**changes: object) -> RequestFinished:
    """A chat of 1.1 s over `acme/support`, answered with 11 tokens, the first after 0.1 s."""
    record = RequestFinished(
        time=NOW,
        id="req-1",
        operation="chat",
        tenant="acme",
        key_id="k_1",
        attached=SUPPORT,
        base=BASE,
        status=200,
        stream=True,
        prompt_tokens=100,
        cached_tokens=60,
        completion_tokens=11,
        first_token=0.1,
        duration=1.1,
        spans=tuple(Span(n, NOW - 1.1 + i / 10, NOW - 1.0 + i / 10) for i, n in enumerate(STEPS)),
        traceparent=TRACEPARENT,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def version(number: int) -> Attached:
    """One of many versions that exist."""
    return replace(SUPPORT, version=f"1.{number}.0", digest=f"sha256:{number:064x}")


def loaded(code: str = "", **changes: object) -> PrefixLoaded:
    record = PrefixLoaded(
        NOW, DIGEST, "acme/support", "fetch", code, 4096,
        {"fetch": 0.03, "room": 0.01, "attach": 0.002},
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


class Kept:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.records: list[object] = []

    def take(self, record: object) -> None:
        self.records.append(record)
