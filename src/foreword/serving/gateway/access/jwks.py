"""The public keys of token issuers, fetched beside the request path and kept when fetching fails."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from joserfc.jwk import KeySet

from foreword.serving.gateway.access.issuers import Issuer, is_safe_url
from foreword.signing import files

REFRESH = 300.0
"""Seconds after which keys are fetched again."""
RETRY = 15.0
"""Seconds between two attempts when keys are missing: fetching failed, or a token names another key."""
_TICK = 1.0
_TIMEOUT = 5.0
_MAX_BYTES = 256 << 10
_DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class KnownKeys:
    """What is known of one issuer's keys."""

    issuer: Issuer
    keys: KeySet | None = None
    """The last ones that could be fetched."""
    fetched: float | None = None
    tried: float | None = None
    problem: str = ""
    """Why the last attempt failed; empty if it did not."""


class IssuerKeys:
    """The keys of all issuers of the access table; `start` keeps them fresh in a thread.

    `of` never waits: an issuer whose keys could not be fetched yet has none.
    """

    def __init__(
        self,
        issuers: Callable[[], Mapping[str, Issuer]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuers = issuers
        self._clock = clock
        self._known: dict[str, KnownKeys] = {}
        self._wanted: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="foreword-jwks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, at the latest after one fetch."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def of(self, issuer: Issuer) -> KeySet | None:
        """The issuer's keys as far as they are known."""
        known = self._known.get(issuer.url)
        return known.keys if known and known.issuer == issuer else None

    def want(self, issuer: Issuer) -> None:
        """A token names a key that is not among them: fetch again soon, it may be new."""
        self._wanted.add(issuer.url)

    def states(self) -> tuple[KnownKeys, ...]:
        """For the readiness check."""
        return tuple(self._known.values())

    def refresh(self) -> None:
        """Fetch whatever is due, one issuer after the other."""
        issuers = self._issuers()
        for url in set(self._known) - set(issuers):
            del self._known[url]
        for url, issuer in issuers.items():
            known = self._known.get(url)
            if known is None or known.issuer != issuer:
                known = KnownKeys(issuer)
            if self._due(known):
                self._wanted.discard(url)
                self._known[url] = _fetched(known, self._clock())

    def _due(self, known: KnownKeys) -> bool:
        if known.tried is None:
            return True
        hurry = bool(known.problem) or known.issuer.url in self._wanted
        return self._clock() - known.tried >= (RETRY if hurry else REFRESH)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._stop.wait(_TICK)


def _fetched(known: KnownKeys, now: float) -> KnownKeys:
    try:
        keys = KeySet.import_key_set(_json(_document(known.issuer)))
        if any(key.is_private for key in keys):
            raise ValueError("it holds private keys")
    except Exception as e:  # whatever an issuer sends, it must not end the thread
        return replace(known, tried=now, problem=f"{type(e).__name__}: {str(e)[:200]}")
    return replace(known, keys=keys, fetched=now, tried=now, problem="")


def _document(issuer: Issuer) -> bytes:
    """The bytes of the key set: from a file, its URL, or the URL its discovery document names."""
    if issuer.jwks.startswith("/"):
        return files.read(Path(issuer.jwks), _MAX_BYTES)
    return _get(issuer.jwks or _discovered(issuer))


def _discovered(issuer: Issuer) -> str:
    """OpenID Connect Discovery 1.0, section 4."""
    found = _json(_get(issuer.url.rstrip("/") + _DISCOVERY))
    if found["issuer"] != issuer.url:  # section 4.3: it must be exactly the one that was asked
        raise ValueError(f"its discovery document is that of {str(found['issuer'])[:200]!r}")
    if not is_safe_url(found["jwks_uri"]):
        raise ValueError("its jwks_uri is no https URL")
    return str(found["jwks_uri"])


def _get(url: str) -> bytes:
    with (
        httpx2.Client(timeout=_TIMEOUT, verify=_trusted(), follow_redirects=False) as client,
        client.stream("GET", url) as response,
    ):
        response.raise_for_status()
        data = b""
        for piece in response.iter_bytes():
            data += piece
            if len(data) > _MAX_BYTES:
                raise ValueError(f"expected at most {_MAX_BYTES} bytes from {url}")
        return data


@cache
def _trusted() -> ssl.SSLContext:
    """The machine's certificate authorities; reading them takes longer than a fetch."""
    return ssl.create_default_context()


def _json(data: bytes) -> Any:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")
    return found
