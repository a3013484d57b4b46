"""Admission by quota: requests and tokens a minute, and requests at the same time.

A request is admitted with the tokens it may need, prompt and longest answer, and settled with those
it took, so that a short or cancelled answer gives the rest back. It counts for its tenant and for its key.
Everything here runs on one event loop and waits for nothing, so there are no locks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

from foreword.errors import QuotaExceeded
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.tenants import Limits
from foreword.serving.gateway.limits.meters import Excess, Meter

LimitsOf = Callable[[str, str], tuple[Limits, Limits]]
"""From tenant and key id to the limits of each; asked for every request, so that changes count at once."""
Owner = tuple[str, str]
"""Tenant and key id; '' as key id for the tenant as a whole."""

_SWEEP = 1_024
"""Idle meters are forgotten when their number has doubled: tokens bring ever new key ids."""
_UNITS = {
    "requests": "requests a minute",
    "tokens": "tokens a minute",
    "streams": "requests at once",
}


class Quotas:
    """What everybody has spent. `now` is in seconds of a steady clock such as `time.monotonic()`."""

    def __init__(self, limits_of: LimitsOf) -> None:
        self._limits_of = limits_of
        self._meters: dict[Owner, Meter] = {}
        self._sweep_at = _SWEEP
        self.streams = 0
        """Requests that are being answered, of all tenants."""

    def admit(self, principal: Principal, tokens: int, now: float) -> Ticket:
        """Count a request that may need so many tokens; all of it, or nothing if it is refused.

        Raises:
            QuotaExceeded: `quota.requests`, `quota.tokens` or `quota.streams` with the seconds to wait;
                `quota.too_large` if it will never fit.
        """
        owners = self._owners(principal)
        meters = {
            owner: self._meters.get(owner, Meter()).at_time(limits, now)
            for owner, limits in owners.items()
        }
        for owner, meter in meters.items():
            excess = meter.excess(owners[owner], tokens)
            if excess:
                raise _refused(owner, excess, tokens)
        self._meters |= {owner: meter.begin(tokens) for owner, meter in meters.items()}
        self.streams += 1
        self._forget_idle(now)
        return Ticket(self, tuple(owners), tokens)

    def _owners(self, principal: Principal) -> dict[Owner, Limits]:
        of_tenant, of_key = self._limits_of(principal.tenant, principal.key_id)
        return {
            (principal.tenant, ""): of_tenant,
            (principal.tenant, principal.key_id): of_key,
        }

    def _end(self, owners: tuple[Owner, ...], tokens: int) -> None:
        for owner in owners:
            self._meters[owner] = self._meters[owner].end(tokens)
        self.streams -= 1

    def _forget_idle(self, now: float) -> None:
        if len(self._meters) < self._sweep_at:
            return
        for owner, meter in list(self._meters.items()):
            limits = self._limits_of(*owner)[1 if owner[1] else 0]
            if meter.at_time(limits, now).idle:
                del self._meters[owner]
        self._sweep_at = max(_SWEEP, 2 * len(self._meters))


class Ticket:
    """A request that was admitted. Leaving its `with` block settles it, however it is left."""

    def __init__(self, quotas: Quotas, owners: tuple[Owner, ...], tokens: int) -> None:
        self._quotas = quotas
        self._owners = owners
        self._promised = tokens
        self._open = True
        self.used = 0
        """Tokens so far; whoever answers keeps it up to date, for when it is not there at the end."""

    def settle(self, tokens_used: int | None = None) -> None:
        """It is over and took so many tokens, by default `used`. Only the first call counts."""
        if not self._open:
            return
        self._open = False
        used = self.used if tokens_used is None else tokens_used
        self._quotas._end(self._owners, used - self._promised)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.settle()


def _refused(owner: Owner, excess: Excess, tokens: int) -> QuotaExceeded:
    tenant, key_id = owner
    who = f"the key {key_id}" if key_id else f"the tenant {tenant!r}"
    has = f"{who} may have {excess.limit} {_UNITS[excess.kind]}"
    if math.isinf(excess.wait):
        return QuotaExceeded(
            f"{has}, which this request of up to {tokens} tokens never fits; ask for less, or for "
            "a higher limit",
            code="quota.too_large",
        )
    return QuotaExceeded(
        f"{has}; try again in {excess.wait:.1f} s",
        code=f"quota.{excess.kind}",
        retry_after=excess.wait,
    )
