"""From the name in a request to a route: authorise, resolve to one digest, refuse what may not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.errors import ForewordError, PrefixUnavailable
from foreword.serving.gateway.access.ended import why_ended
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.words import BASE
from foreword.serving.gateway.routing.asked import Asked, candidates
from foreword.serving.gateway.routing.route import Route
from foreword.serving.gateway.routing.table import ReleaseTable


@dataclass(frozen=True)
class Model:
    """What a key may write as `model`."""

    name: str
    parent: str | None
    """`base` for a prefix."""


def _nothing(_digest: Digest) -> None:
    """Nobody wants to know."""


class Router:
    """Resolves names by the tables of the moment. Waits for nothing; safe from any thread."""

    def __init__(
        self,
        releases: Callable[[], ReleaseTable],
        access: Callable[[], AccessTable],
        base: Digest,
        *,
        used: Callable[[Digest], None] = _nothing,
        unread: Callable[[Digest], None] = _nothing,
    ) -> None:
        """`base` is the fingerprint of the base that runs here.

        `used` is told each digest that a request is routed to, `unread` one whose manifest is missing.
        """
        self._releases, self._access, self._base = releases, access, base
        self._used, self._unread = used, unread

    def route(self, principal: Principal, model: str, sticky: str) -> Route:
        """What answers `model` for this principal; the key `sticky` chooses between two arms.

        Raises:
            NotFound: there is no such model, or not for this principal (`model.not_found`).
            PrefixUnavailable: it may not be used now (`prefix.killed`, `prefix.revoked`,
                `prefix.retired`), or its manifest is not here yet (`prefix.fetch_failed`).
            CompatibilityError: it was made for another base (`prefix.does_not_fit_base`).
        """
        asked = self._asked(principal, model)
        if model == BASE:
            return self._noted(asked.bare())
        wanted = asked.choose(sticky)
        try:
            return self._noted(asked.prefixed(wanted))
        except PrefixUnavailable as error:
            if wanted.known.digest not in asked.table.prompts:
                self._unread(wanted.known.digest)
            instead = asked.instead_of(wanted.known, error)
            if instead is None:
                raise
            return self._noted(instead)

    def after_failure(
        self, principal: Principal, route: Route, error: BaseException
    ) -> Route | None:
        """What may answer instead of a route that failed before its first token; None: nothing.

        A fallback that fails is not followed by another one.
        """
        asked = self._asked(principal, route.asked)
        known = asked.table.versions.get(route.prefix.digest) if route.prefix else None
        if known is None or route.fallback is not None:
            return None
        instead = asked.instead_of(known, error)
        return self._noted(instead) if instead else None

    def why_ended(self, principal: Principal, route: Route) -> ForewordError | None:
        """Why a request on this route may not go on, as of now; None if it may."""
        used = route.prefix
        version = None if used is None else (used.name, used.version, used.digest)
        return why_ended(self._access(), principal, version)

    def models(self, principal: Principal) -> tuple[Model, ...]:
        """What this principal may use now: the base, and every released prefix that fits it."""
        asked = self._asked(principal, BASE)
        base = (Model(BASE, None),) if asked.may_use(None) else ()
        names = sorted(filter(asked.is_usable, set(candidates(asked))))
        return (*base, *(Model(name, BASE) for name in names))

    def _asked(self, principal: Principal, model: str) -> Asked:
        return Asked(principal, model, self._releases(), self._access(), self._base)

    def _noted(self, route: Route) -> Route:
        if route.prefix is not None:
            self._used(route.prefix.digest)
        return route
