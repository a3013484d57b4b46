"""Asks an operator's port again and again."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Self

import httpx2

from foreword.client.address import Address, unreachable
from foreword.client.top.look import Look, look
from foreword.client.top.page import NOTHING, Page, read_page
from foreword.errors import ServingError

WINDOW = 60.0
"""Seconds of which latencies are told."""
_TIMEOUT = 5.0
_HINT = "`foreword serve` says where its metrics are; give that address with --url or FOREWORD_ADMIN_URL"


class Reader:
    """`since_start`: latencies and hit rate of all requests there were, and not of the last minute."""

    def __init__(self, address: Address, *, since_start: bool = False) -> None:
        self.address = address
        self._since_start = since_start
        self._pages: deque[Page] = deque()
        self._client = httpx2.Client(base_url=f"{address.url}/", timeout=_TIMEOUT, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def read(self) -> Look | None:
        """What holds now; None the first time, when there is nothing to compare with.

        Raises:
            ServingError: nothing answers (`client.unreachable`), or something else (`top.page`).
        """
        page = read_page(self._get("metrics").text)
        self._pages.append(page)
        while len(self._pages) > 2 and page.when - self._pages[1].when >= WINDOW:
            self._pages.popleft()
        if len(self._pages) < 2:
            return None
        far = NOTHING if self._since_start else self._pages[0]
        return look(self._ready(), far, self._pages[-2], page)

    def _ready(self) -> dict[str, Any]:
        try:
            return dict(self._get("readyz").json())
        except ValueError as e:
            raise ServingError(
                "/readyz answers with something else than JSON", code="top.page"
            ) from e

    def _get(self, path: str) -> httpx2.Response:
        try:
            return self._client.get(path)
        except httpx2.HTTPError as e:
            raise unreachable(self.address.url, e, _HINT) from e
