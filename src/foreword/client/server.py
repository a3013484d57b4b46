"""A server as a conversation needs it: which models there are, and streamed answers.

with Server(address("http://127.0.0.1:8000", key)) as server:
    stream = server.ask({"model": "acme/support", "messages": [...]})
    for text in stream: ...
    print(stream.answer().receipt.line)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from foreword.client.address import Address, unreachable
from foreword.client.answers import Answer, Reading, read_refusal, strange
from foreword.client.receipt import require_headers

_HINT = "start one with `foreword serve`, or give its address with --url or FOREWORD_URL"
_CONNECT = 5.0


class Stream:
    """The answer to one question: iterate over its text, then take the whole."""

    def __init__(self, client: httpx2.Client, body: Mapping[str, Any], where: str) -> None:
        self._client, self._body, self._where = client, body, where
        self._reading = Reading()
        self._headers: Mapping[str, str] = {}
        self.first_token: float | None = None
        """Seconds until the first text came."""
        self.seconds = 0.0

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as they come.

        Raises:
            ServingError: the server refuses, breaks off, or is not there; `code` is its own.
        """
        began = time.monotonic()
        try:
            yield from self._texts(began)
        except httpx2.HTTPError as e:
            raise unreachable(self._where, e, _HINT) from e
        finally:
            self.seconds = time.monotonic() - began

    def answer(self) -> Answer:
        """The whole, after the last piece.

        Raises:
            ServingError: it has no receipt, or two that differ.
        """
        answer = self._reading.answer()
        require_headers(answer.receipt, self._headers)
        return answer

    def _texts(self, began: float) -> Iterator[str]:
        with self._client.stream("POST", "chat/completions", json=dict(self._body)) as response:
            if response.status_code != 200:
                raise read_refusal(response.status_code, response.read())
            self._headers = response.headers
            for line in response.iter_lines():
                if text := self._reading.take(line):
                    if self.first_token is None:
                        self.first_token = time.monotonic() - began
                    yield text


class Server:
    """May be used by several threads at the same time. `timeout`: seconds without a byte."""

    def __init__(self, address: Address, timeout: float = 600.0) -> None:
        self.address = address
        self._client = httpx2.Client(
            base_url=f"{address.url}/v1/",
            headers=address.headers,
            timeout=httpx2.Timeout(timeout, connect=_CONNECT),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def models(self) -> tuple[str, ...]:
        """What this key may use; the bare model, if it may, is `base`.

        Raises:
            ServingError: as `Stream`.
        """
        return tuple(_names(self._get("models")))

    def require_model(self, name: str) -> None:
        """
        Raises:
            ServingError: there is no such model for this key; the code is the server's.
        """
        self._get(f"models/{quote(name, safe='/@:')}")

    def ask(self, body: Mapping[str, Any]) -> Stream:
        """A chat completion. Nothing is sent before the stream is iterated over."""
        more = {"stream": True, "stream_options": {"include_usage": True}}
        return Stream(self._client, {**body, **more}, self.address.url)

    def _get(self, path: str) -> Any:
        try:
            response = self._client.get(path)
        except httpx2.HTTPError as e:
            raise unreachable(self.address.url, e, _HINT) from e
        if response.status_code != 200:
            raise read_refusal(response.status_code, response.content)
        try:
            return response.json()
        except ValueError as e:
            raise strange() from e


def _names(document: Any) -> Iterator[str]:
    try:
        for model in document["data"]:
            yield str(model["id"])
    except (KeyError, TypeError) as e:
        raise strange() from e
