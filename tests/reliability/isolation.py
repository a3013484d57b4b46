"""What one tenant tries with what is another's: every way in, beside its twin that leads to nothing.

A *probe* asks for something of another tenant's, its *twin* for something of the same form that nobody
has. Anything that differs between the two is a crossing, and so is any trace of the other one's.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.reliability.many_tenants import Caller, Resident, Said, Server, Town

NOBODYS_DIGEST = "sha256:" + "0123456789abcdef" * 4
ALIASES = ("prod", "stable", "canary")
_OF_ITS_OWN = {"x-request-id", "date", "x-client-request-id"}
"""Headers in which any two answers differ."""


@dataclass
class Matrix:
    """All tenants against all, on one server."""

    town: Town
    server: Server
    checks: Counter[str] = field(default_factory=Counter)
    crossings: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Way, who tried, whose it was, what was seen."""
    ids: Counter[str] = field(default_factory=Counter)
    _callers: dict[str, Caller] = field(default_factory=dict)
    _own: dict[str, str] = field(default_factory=dict)
    """What each tenant's own prefix answers."""

    def run(self) -> None:
        """Each tenant uses what is its own, then tries what is everybody else's."""
        for who in self.town.tenants:
            self._at_home(who)
        for who in self.town.tenants:
            self._settle()
            for other in self.town.tenants:
                if who is not other:
                    self._try(who, other)
        self._read_logs()

    def found(self) -> set[str]:
        return {way for way, *_ in self.crossings}

    # One tenant at home: what is looked for can be found, and is there to be taken.

    def _at_home(self, who: Resident) -> None:
        caller = self._callers[who.name] = self.server.caller(who)
        assert who.own in _names(caller.ask("/v1/models"))
        for model in (who.own, f"{who.own}@prod", str(who.digest)):
            assert caller.ask(f"/v1/models/{model}").json["foreword"]["digest"] == str(who.digest)
        used = caller.ask("/v1/chat/completions", chat(who.own), **_keyed(who.name))
        assert used.json["foreword"]["digest"] == str(who.digest)
        self._own[who.name] = _answer(used)
        for _ in range(3):
            stored = caller.ask("/v1/completions", completion("base", who.prompt))
        assert _cached(stored) >= 32

    # One tenant and what is another's.

    def _try(self, who: Resident, other: Resident) -> None:
        caller, before = self._callers[who.name], self._series(other)
        nobody = f"{other.name}/nil"
        self._list(caller, who, other)
        self._same("get", who, other, _gets(caller, other.own), _gets(caller, nobody))
        self._same("use by name", who, other, _uses(caller, other.own), _uses(caller, nobody))
        digests = (str(other.digest), NOBODYS_DIGEST)
        self._same("use by digest", who, other, *(_uses(caller, each) for each in digests))
        for word in ALIASES:
            pair = (_uses(caller, f"{name}@{word}") for name in (other.own, nobody))
            self._same("guess an alias", who, other, *pair)
        for version in ("", "@1.0.0"):
            pair = (_uses(caller, f"{other.name}/{it}{version}") for it in ("state", "stxte"))
            self._same("errors", who, other, *pair)
        self._cache(caller, who, other)
        self._idempotency(caller, who, other)
        self._metrics(caller, who, other, before)
        self._list(caller, who, other)

    def _list(self, caller: Caller, who: Resident, other: Resident) -> None:
        seen = [
            name for name in _names(caller.ask("/v1/models")) if name.startswith(other.marks[0])
        ]
        self._check("list", who, other, not seen, str(seen))

    def _same(
        self, way: str, who: Resident, other: Resident, theirs: list[Told], twins: list[Told]
    ) -> None:
        for probe, twin in zip(theirs, twins, strict=True):
            self.ids.update([probe.id, twin.id])
            self._check(way, who, other, probe.shown == twin.shown, f"{probe.shown} {twin.shown}")

    def _cache(self, caller: Caller, who: Resident, other: Resident) -> None:
        """Its prompt, which is stored for it, and another prompt of the same length."""
        new = f"{who.name}{other.name}{other.prompt[::-1]}"[: len(other.prompt)]
        theirs, fresh = (
            caller.ask("/v1/completions", completion("base", text)) for text in (other.prompt, new)
        )
        self._check("cached response", who, other, _cached(theirs) == _cached(fresh) == 0,
                    f"{_cached(theirs)} tokens were reused")  # fmt: skip

    def _idempotency(self, caller: Caller, who: Resident, other: Resident) -> None:
        """Its own prefix, with the key and the request id that the other one sent."""
        said = caller.ask("/v1/chat/completions", chat(who.own), **_keyed(other.name))
        self.ids.update([said.headers["x-request-id"]])
        mine = said.headers.get("x-foreword-digest") == str(who.digest)
        self._check("idempotency key", who, other, mine and _answer(said) == self._own[who.name],
                    said.text)  # fmt: skip

    def _metrics(
        self, caller: Caller, who: Resident, other: Resident, before: dict[str, str]
    ) -> None:
        page = caller.ask("/metrics")
        shown = page.status != 404 or _marked(page.text, other)
        admin = Caller(self.server.admin_port, who.key).ask("/admin/releases")
        self._check("metrics", who, other, not shown and admin.status == 403, page.text)
        after = self._series(other)
        self._check("metrics", who, other, before == after, "somebody else moved them")

    def _series(self, other: Resident) -> dict[str, str]:
        """What the operator's page counts of a tenant's prefixes: only its own requests may move it."""
        page = Caller(self.server.admin_port, other.key).ask("/metrics").text
        pattern = re.compile(
            rf'^(prefix_(?:requests|tokens)\S*\{{.*"{other.name}/.*\}}) (\S+)$', re.M
        )
        return dict(pattern.findall(page))

    def _settle(self) -> None:
        """Wait until the last row is counted: metrics are told beside the requests."""
        pages: list[str] = []
        caller = Caller(self.server.admin_port, "")
        while len(pages) < 4 or len({_counts(page) for page in pages[-4:]}) > 1:
            pages.append(caller.ask("/metrics").text)
            time.sleep(0.1)

    def _read_logs(self) -> None:
        """No line about one tenant's request has anything of another's in it."""
        texts: dict[str, list[str]] = {}
        for line in self.server.lines():
            texts.setdefault(line.get("tenant", ""), []).append(json.dumps(line))
        for who in self.town.tenants:
            mine = "\n".join(texts.get(who.name, ()))
            for other in self.town.tenants:
                if other is not who:
                    self._check("logs", who, other, not _marked(mine, other), "in the log")

    def _check(self, way: str, who: Resident, other: Resident, well: bool, seen: str) -> None:
        self.checks[way] += 1
        if not well:
            self.crossings.append((way, who.name, other.name, seen[:400]))


@dataclass(frozen=True)
class Told:
    """An answer, as far as it may not differ from another one."""

    shown: tuple[int, str, tuple[tuple[str, str], ...]]
    id: str


def _told(said: Said, asked: str) -> Told:
    headers = sorted((k, v) for k, v in said.headers.items() if k not in _OF_ITS_OWN)
    shown = said.status, said.text.replace(asked, "MODEL"), tuple(headers)
    return Told(shown, said.headers["x-request-id"])


def _gets(caller: Caller, name: str) -> list[Told]:
    paths = (f"/v1/models/{name}", f"/v1/models/{name.replace('/', '%2F')}")
    return [_told(caller.ask(path), name) for path in paths]


def _uses(caller: Caller, model: str) -> list[Told]:
    asked: Sequence[tuple[str, Any]] = (
        ("/v1/chat/completions", chat(model)),
        ("/v1/completions", {**completion(model, "ab"), "stream": True}),
    )
    return [_told(caller.ask(path, body), model) for path, body in asked]


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "ab"}], "max_tokens": 4,
            "temperature": 0}  # fmt: skip


def completion(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0}


def _keyed(name: str) -> dict[str, str]:
    return {"Idempotency-Key": f"order-{name}", "X-Request-Id": f"order-{name}"}


def _names(said: Said) -> list[str]:
    return [each["id"] for each in said.json["data"]]


def _answer(said: Said) -> str:
    return str(said.json["choices"][0]["message"]["content"])


def _cached(said: Said) -> int:
    return int(said.json["usage"]["prompt_tokens_details"]["cached_tokens"])


def _counts(page: str) -> str:
    return "\n".join(line for line in page.splitlines() if line.startswith("prefix_requests_total"))


def _marked(text: str, other: Resident) -> bool:
    return any(mark in text for mark in other.marks)


def twins(other: Resident) -> Iterator[tuple[str, str]]:
    """Names that are another tenant's and names that are nobody's, of the same form."""
    yield other.own, f"{other.name}/nil"
    yield f"{other.own}@1.0.0", f"{other.name}/nil@1.0.0"
    yield str(other.digest), NOBODYS_DIGEST
