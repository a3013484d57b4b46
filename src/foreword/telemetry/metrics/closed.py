"""Label values come from these sets. Whatever else arrives is `other`."""

from __future__ import annotations

import re

from foreword.telemetry.records import Attached

OTHER, BASE = "other", "base"
ANY: frozenset[str] = frozenset()
"""A label that is not closed by a set: prefixes by their rank, sinks by what is configured."""

LOAD_FAILURES = frozenset({
    "fetch_failed", "fetch_timeout", "not_verified", "damaged", "does_not_fit_base", "probe_failed",
    "over_budget", "no_room", "no_memory",
})  # fmt: skip
"""Codes of the prefix store, without `prefix.`"""
RESULTS = LOAD_FAILURES | {"ok", OTHER}
FALLBACKS = LOAD_FAILURES - {"not_verified", "does_not_fit_base"} | {"killed", "not_resident"}
"""Codes for which a tenant's policy may let something else answer."""
COMPATIBILITY = frozenset({"does_not_fit_base", "probe_failed"})
FETCH = frozenset({"fetch_failed", "fetch_timeout"})
AUTH = frozenset({"key", "scope", "tenant", "expired"})
REFUSALS = AUTH | {"quota", "overload", "malformed", "unknown"}
SOURCES = frozenset({"host", "disk", "fetch"})
PHASES = frozenset({"fetch", "room", "attach"})
EVICTIONS = frozenset({"room", "forgotten", "operator"})
OPERATIONS = frozenset({"chat", "completion"})
OUTCOMES = frozenset({"ok", "client_error", "server_error", "cancelled"})
KINDS = frozenset({"prompt", "cached", "completion"})
STATUSES = frozenset({
    "200", "400", "401", "403", "404", "405", "408", "409", "413", "415", "422", "429", "431",
    "499", "500", "502", "503", "504",
})  # fmt: skip

_NAME = re.compile(r"[A-Za-z0-9._/-]{1,140}")
_VERSION = re.compile(r"[A-Za-z0-9.+-]{1,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def one_of(known: frozenset[str], value: str) -> str:
    return value if value in known else OTHER


def short(known: frozenset[str], code: str) -> str:
    """`prefix.no_room` as a label value: `no_room`."""
    return one_of(known, code.removeprefix("prefix."))


def outcome(status: int) -> str:
    """Whose doing an ending was."""
    if status < 400:
        return "ok"
    if status == 499:
        return "cancelled"
    return "client_error" if status < 500 else "server_error"


def version_of(attached: Attached) -> str:
    """`tenant/name@version`, `base`, or `other` if it is no name that could have been published."""
    if not attached.name:
        return BASE
    if not _NAME.fullmatch(attached.name) or not _VERSION.fullmatch(attached.version):
        return OTHER
    return f"{attached.name}@{attached.version}"


def digest_of(attached: Attached) -> str:
    return attached.digest if _DIGEST.fullmatch(attached.digest) else OTHER


def name_list(names: tuple[str, ...], most: int = 50) -> str:
    """Names as a client may write them, with commas between."""
    kept = [name for name in names if _NAME.fullmatch(name.partition("@")[0])
            and (_VERSION.fullmatch(name.partition("@")[2]) or "@" not in name)]  # fmt: skip
    return ",".join(sorted(set(kept))[:most])
