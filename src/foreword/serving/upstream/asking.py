"""What a gateway asks an engine before it serves: which base it runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx2

from foreword.artifact import BaseRef
from foreword.errors import EngineFailed, UsageError
from foreword.serving.upstream.base_json import base_from_bytes
from foreword.serving.upstream.client import address_of, refusal
from foreword.serving.upstream.poll import unreachable
from foreword.serving.upstream.secret import Secret

_ANSWER = 2.0
_PAUSE = 0.5
"""Seconds."""


def ask_base(
    url: str, secret: Secret, patience: float, waiting: Callable[[], None] = lambda: None
) -> BaseRef:
    """The base of the engine at `url`, which has `patience` seconds to come up.

    `waiting` is called once if it is not there yet.

    Raises:
        ConfigError: the address is none (`engine.url`).
        EngineFailed: it does not answer (`engine.unreachable`), or refuses us (`engine.refused`).
    """
    address, end, told = address_of(url), time.monotonic() + patience, False
    with httpx2.Client(headers=secret.headers, timeout=_ANSWER, trust_env=False) as client:
        while True:
            try:
                return _ask(client, address)
            except httpx2.HTTPError as e:
                if time.monotonic() >= end:
                    raise unreachable(e) from e
            if not told:
                waiting()
                told = True
            time.sleep(_PAUSE)


def _ask(client: httpx2.Client, address: httpx2.URL) -> BaseRef:
    said = client.get(address.join("base"))
    if said.status_code != 200:
        raise refusal(said.status_code, said.content)
    try:
        return base_from_bytes(said.content)
    except UsageError as e:
        raise EngineFailed(f"what answers there is no engine ({e})", code="engine.refused") from e
