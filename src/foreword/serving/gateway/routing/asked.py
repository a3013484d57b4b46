"""One question of one principal, on the tables of that moment: which version, and may it answer?

Whoever may not use a name is led to one that does not exist. So "not yours" and "not there" are one
path through this file, with the same work and the same answer: what another tenant has is not looked at.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from foreword.artifact import Digest
from foreword.errors import (
    CompatibilityError,
    ForewordError,
    NotFound,
    PrefixUnavailable,
    UsageError,
)
from foreword.registry.references import (
    STABLE,
    ByAlias,
    ByDigest,
    ByName,
    Reference,
    parse_reference,
)
from foreword.serving.gateway.access.authorise import allowed
from foreword.serving.gateway.access.kills import killed
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.access.tenants import NO_FALLBACK
from foreword.serving.gateway.access.words import ALL, BASE
from foreword.serving.gateway.routing.fallback import after_failure
from foreword.serving.gateway.routing.route import Fallback, Prefix, Route
from foreword.serving.gateway.routing.table import Choice, Known, ReleaseTable

_NOBODY = ByName("-")
"""A name begins with a letter or a digit, so there is never such a one."""
_READING_SECONDS = 1.0
"""After which it is worth asking again for a version whose manifest is still to be read."""


@dataclass(frozen=True)
class Asked:
    """Who asks for what, and the tables that it is decided on."""

    principal: Principal
    model: str
    table: ReleaseTable
    access: AccessTable
    base: Digest

    def may_use(self, name: str | None) -> bool:
        return allowed(self.access, self.principal, name)

    def choose(self, sticky: str) -> Choice:
        """The version that is meant, whether or not it may be used."""
        reference = self._reference()
        name = self._name(reference)
        choice = self.table.find(reference if self.may_use(name) else _NOBODY, sticky)
        if choice is None:
            raise self._not_found()
        return choice

    def bare(self, fallback: Fallback | None = None) -> Route:
        if not self.may_use(None):
            raise self._not_found()
        return Route(self.model, None, None, self.base, self.table.seq, fallback)

    def prefixed(self, choice: Choice, fallback: Fallback | None = None) -> Route:
        """The route to a version that may be used.

        Raises:
            PrefixUnavailable, CompatibilityError: as `Router.route`.
        """
        known = choice.known
        self._require_usable(known)
        prompt = self.table.prompts.get(known.digest)
        if prompt is None:
            raise PrefixUnavailable(
                f"the manifest of {known} could not be read yet; ask again",
                code="prefix.fetch_failed",
                retry_after=_READING_SECONDS,
            )
        prefix = Prefix(known.name, known.version, known.digest, known.length, prompt)
        return Route(self.model, prefix, choice.arm, self.base, self.table.seq, fallback)

    def instead_of(self, wanted: Known, error: BaseException) -> Route | None:
        """What the tenant's policy lets answer in its place, if that can be used itself."""
        tenant = self.access.active(self.principal.tenant)
        stand_in = after_failure(error, tenant.fallback if tenant else NO_FALLBACK)
        if stand_in is None or not isinstance(error, ForewordError):
            return None
        fallback = Fallback(str(wanted), error.code)
        try:
            if stand_in == BASE:
                return self.bare(fallback)
            return self._stable(stand_in, wanted, fallback)
        except (NotFound, PrefixUnavailable, CompatibilityError):
            return None

    def is_usable(self, name: str) -> bool:
        """Whether a name by itself would be answered now."""
        choice = self.table.find(ByName(name), "") if self.may_use(name) else None
        if choice is None:
            return False
        try:
            self._require_usable(choice.known)
        except (PrefixUnavailable, CompatibilityError):
            return False
        return True

    def _stable(self, name: str, wanted: Known, fallback: Fallback) -> Route | None:
        choice = self.table.find(ByAlias(name, STABLE), "") if self.may_use(name) else None
        if choice is None or choice.known.digest == wanted.digest:
            return None
        return self.prefixed(choice, fallback)

    def _require_usable(self, known: Known) -> None:
        if known.status != "live":
            raise PrefixUnavailable(
                f"{known} was {known.status} and is not used any more; take another version",
                code=f"prefix.{known.status}",
            )
        if self.access.kill_of(known.name, known.version, known.digest):
            raise killed(known.name, known.version)
        if known.base != self.base:
            raise CompatibilityError(
                f"{known} was made for the base {known.base.short}, here runs {self.base.short}; train "
                "it for this one, or ask a server of that one",
                code="prefix.does_not_fit_base",
            )

    def _reference(self) -> Reference:
        """What is no reference is the name of nobody: it is answered as one that is not there."""
        try:
            return parse_reference(self.model)
        except UsageError:
            return _NOBODY

    def _name(self, reference: Reference) -> str:
        """The name a key has to be allowed to use."""
        if not isinstance(reference, ByDigest):
            return reference.name
        return self.table.owners.get(reference.digest.hex, _NOBODY.name)

    def _not_found(self) -> NotFound:
        return NotFound(
            f"there is no model {self.model[:130]!r} that this key may use; GET /v1/models lists those "
            "there are",
            code="model.not_found",
        )


def candidates(asked: Asked) -> Iterator[str]:
    """Names that a principal might use, found without looking at those of others."""
    tenant = asked.access.active(asked.principal.tenant)
    if tenant is None:
        return
    for pattern in (f"{tenant.name}/{ALL}", *tenant.grants):
        start = pattern.removesuffix(ALL)
        if start == pattern:
            yield from (pattern,) if pattern in asked.table.names else ()
            continue
        order = asked.table.order
        for index in range(bisect_left(order, start), len(order)):
            if not order[index].startswith(start):
                break
            yield order[index]
