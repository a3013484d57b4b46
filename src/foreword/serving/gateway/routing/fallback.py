"""What may answer if a prefix cannot be had: only what its tenant's policy says, and never silently.

A policy is `none`, `base`, or the name of a prefix that is safe, of which the stable version is meant.
So a policy that names the prefix itself lets its stable version stand in for its canary.
"""

from __future__ import annotations

from foreword.errors import PrefixUnavailable
from foreword.serving.gateway.access.tenants import NO_FALLBACK

PASSING = frozenset(
    {
        "prefix.killed",
        "prefix.fetch_failed",
        "prefix.fetch_timeout",
        "prefix.damaged",
        "prefix.probe_failed",
        "prefix.over_budget",
        "prefix.no_room",
        "prefix.no_memory",
        "prefix.not_resident",
        PrefixUnavailable.default_code,
    }
)
"""Codes of a prefix that cannot be had. One that was revoked or retired, that nobody vouches for, or
that was made for another base is refused whatever the policy says: who asks for it has to know."""


def after_failure(error: BaseException, policy: str) -> str | None:
    """`base`, or the name whose stable version may answer instead, before the first token; None: nothing."""
    if policy == NO_FALLBACK or not isinstance(error, PrefixUnavailable):
        return None
    return policy if error.code in PASSING else None
