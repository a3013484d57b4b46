"""`foreword` with leaks that have to be found: python -m tests.reliability.leaks LEAK,... VERB ...

open      whoever has a key may use everything, and is shown everything
shared    one cache of prompts for all tenants
replay    an answer is given again to whoever sends the same Idempotency-Key, whoever it is
looking   "not yours" is found out after a look of 1 ms at the prefix, and has a code of its own
none      as it is
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from foreword.errors import NotFound
from foreword.serving.engine.reuse.prompts import PromptCache
from foreword.serving.gateway.edge.compose import Edge
from foreword.serving.gateway.edge.types import Message, Receive, Scope, Send, all_of
from foreword.serving.gateway.routing import asked, resolve
from foreword.serving.gateway.routing.asked import Asked
from foreword.serving.gateway.routing.table import Choice


def open_() -> None:
    asked.allowed = lambda table, principal, name: True  # type: ignore[attr-defined]
    resolve.candidates = lambda question: iter(question.table.order)  # type: ignore[attr-defined]


def shared() -> None:
    for name in ("lookup", "store"):
        plain = getattr(PromptCache, name)
        setattr(PromptCache, name, _for_everybody(plain))


def _for_everybody(plain: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, tenant, *more: plain(self, "everybody", *more)


def replay() -> None:
    plain, kept = Edge.__call__, dict[bytes, list[Message]]()

    async def call(self: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        key = b"".join(all_of(scope.get("headers", []), b"idempotency-key"))
        said = kept.get(key, [])
        if said:
            for message in said:
                await send(message)
            return

        async def both(message: Message) -> None:
            said.append(message)
            await send(message)

        await plain(self, scope, receive, both)
        if key:
            kept[key] = said

    Edge.__call__ = call  # type: ignore[method-assign]


def looking() -> None:
    look_first(lambda: time.sleep(0.001), "model.not_yours")


def look_first(before: Callable[[], None], code: str) -> None:
    """Look at what is asked for before asking whether it may be."""
    plain = Asked.choose

    def choose(self: Asked, sticky: str) -> Choice:
        reference = self._reference()
        if self.table.find(reference, sticky) and not self.may_use(self._name(reference)):
            before()
            raise NotFound(str(self._not_found()), code=code)
        return plain(self, sticky)

    Asked.choose = choose  # type: ignore[method-assign]


LEAKS: dict[str, Callable[[], None]] = {
    "open": open_, "shared": shared, "replay": replay, "looking": looking, "none": lambda: None,
}  # fmt: skip

if __name__ == "__main__":
    from foreword.cli.main import main

    for leak in sys.argv[1].split(","):
        LEAKS[leak]()
    main(sys.argv[2:])
