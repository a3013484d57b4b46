"""What every change through the operator's API has in common: who, when, and on which generation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from foreword.errors import UsageError
from foreword.registry.entries import By
from foreword.serving.gateway.access.principal import Principal
from foreword.serving.gateway.access.table import AccessTable
from foreword.serving.gateway.admin.gate import OPERATOR
from foreword.serving.gateway.admin.parts import AdminParts

_ETAG = re.compile(r'"(0|[1-9][0-9]{0,15})"')


@dataclass(frozen=True)
class Visit:
    """One request of an operator."""

    operator: Principal
    expect: int | None
    """Generation of `If-Match`; None: whatever it is."""
    response: Response

    def change(
        self, parts: AdminParts, fn: Callable[[AccessTable], AccessTable], reason: str = ""
    ) -> AccessTable:
        """Change the table in this operator's name; the response gets the new `ETag`.

        Raises:
            Conflict, ConfigError, StorageError: as `AccessStore.change`, and what `fn` raises.
        """
        by = By(self.operator.key_id, parts.now(), reason)
        return self.tag(parts.store.change(fn, by, expect=self.expect))

    def tag(self, table: AccessTable) -> AccessTable:
        """Say in the `ETag` which generation is shown."""
        self.response.headers["ETag"] = f'"{table.generation}"'
        return table


def visit(
    request: Request,
    response: Response,
    if_match: Annotated[
        str | None,
        Header(description="The ETag that was seen: change only if nothing was changed since."),
    ] = None,
) -> Visit:
    """
    Raises:
        UsageError: `If-Match` is no ETag of this API (`admin.if_match`).
    """
    response.headers["Cache-Control"] = "no-store"  # a key may be in the answer
    return Visit(request.scope[OPERATOR], _generation(if_match), response)


def _generation(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise UsageError(
            f'expected an ETag of this API such as "12" in If-Match, got {if_match[:40]!r}',
            code="admin.if_match",
        )
    return int(found[1])


Visiting = Annotated[Visit, Depends(visit)]
