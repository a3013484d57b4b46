"""Any OpenAI-compatible endpoint as a `Generate`, asked by a bounded number of threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from foreword.artifact import Digest
from foreword.errors import ArtifactError, EngineFailed, UsageError
from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.ask import Ask, Finished
from foreword.evaluation.runs.decoding import Decoding

if TYPE_CHECKING:
    import httpx2

_DIGEST = "X-Foreword-Digest"
_BUSY = frozenset({429, 503})
_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask; `generate` is a `Generate`, `complete` what a judge is asked with."""

    url: str
    """Up to and with `/v1`."""
    key: str | None = field(default=None, repr=False)
    model: str | None = None
    """For `complete`; `generate` asks for the model each variant's route names."""
    at_once: int = 16
    timeout: float = 120.0
    """Seconds for one request."""
    attempts: int = 5
    """Tries for a request that is told to come again (429, 503)."""

    def generate(self, asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        """Answer all; the first request that fails for good ends the run.

        Raises:
            EngineFailed: the endpoint refused or answered in another form (`evaluation.endpoint`).
        """
        bodies = [_body(ask, decoding) for ask in asks]
        self._all(bodies, finished)

    def complete(
        self,
        prompts: Sequence[str],
        max_tokens: int = 256,
        schema: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """One greedy answer for each prompt, in order; of this JSON Schema, if one is given.

        Raises:
            UsageError: no `model` is named (`evaluation.model`).
            EngineFailed: as `generate` does.
        """
        if self.model is None:
            raise UsageError("name the model to ask at the endpoint", code="evaluation.model")
        texts = [""] * len(prompts)
        wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        held = {"response_format": wanted} if schema is not None else {}
        bodies = [
            {"model": self.model, "messages": [{"role": "user", "content": prompt}],
             "max_tokens": max_tokens, "temperature": 0.0, **held}
            for prompt in prompts
        ]  # fmt: skip

        def keep(place: int, said: Answer) -> None:
            texts[place] = said.text

        self._all(bodies, keep)
        return texts

    def _all(self, bodies: Sequence[Mapping[str, Any]], finished: Finished) -> None:
        with self._client() as client, ThreadPoolExecutor(self.at_once) as pool:
            waiting = {
                pool.submit(self._one, client, body): place for place, body in enumerate(bodies)
            }
            try:
                for done in as_completed(waiting):
                    finished(waiting[done], done.result())
            finally:  # after a failure, what has not begun is not begun
                pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, client: httpx2.Client, body: Mapping[str, Any]) -> Answer:
        response, seconds = self._posted(client, body)
        if response.status_code != 200:
            raise _failed(self.url, f"status {response.status_code}: {response.text[:200]!r}")
        return _answer(self.url, response, seconds)

    def _posted(
        self, client: httpx2.Client, body: Mapping[str, Any]
    ) -> tuple[httpx2.Response, float]:
        """The response, and the seconds of the try that gave it."""
        import httpx2

        for attempt in range(1, self.attempts + 1):
            began = time.monotonic()
            try:
                response = client.post("chat/completions", json=dict(body))
            except httpx2.HTTPError as e:
                raise _failed(self.url, f"{type(e).__name__}: {str(e)[:200]}") from e
            if response.status_code not in _BUSY or attempt == self.attempts:
                break
            time.sleep(_wait(response.headers.get("Retry-After"), attempt))
        return response, time.monotonic() - began

    def _client(self) -> httpx2.Client:
        try:
            import httpx2
        except ImportError as e:
            raise UsageError(
                "judging an endpoint needs the package `httpx2`; install foreword[eval]",
                code="evaluation.extra",
            ) from e
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx2.Limits(max_connections=self.at_once)
        return httpx2.Client(
            base_url=self.url.rstrip("/") + "/",
            headers=headers,
            timeout=self.timeout,
            limits=limits,
        )


def _body(ask: Ask, decoding: Decoding) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": ask.variant.route, "messages": _messages(ask.row),
        "max_tokens": decoding.max_new_tokens, "temperature": decoding.temperature,
        "seed": decoding.seed,
    }  # fmt: skip
    if set(ask.row.columns) - {"input"}:
        body["foreword"] = {"inputs": dict(ask.row.columns)}
    return body


def _messages(row: GoldenRow) -> list[dict[str, str]]:
    if row.messages:
        return [{"role": message.role, "content": message.content} for message in row.messages]
    return [{"role": "user", "content": row.text}]


def _answer(url: str, response: httpx2.Response, seconds: float) -> Answer:
    try:
        value = response.json()
        text = value["choices"][0]["message"]["content"]
        tokens = value.get("usage", {}).get("completion_tokens")
        named = response.headers.get(_DIGEST)
        digest = Digest.parse(named) if named and named.startswith("sha256:") else None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, ArtifactError) as e:
        raise _failed(url, f"an answer of another form ({type(e).__name__})") from e
    if not isinstance(text, str):
        raise _failed(url, "an answer without text")
    # JSON may hold half a character, which nothing after this could encode.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Answer(text.strip(), digest, tokens if isinstance(tokens, int) else None, seconds)


def _wait(asked: str | None, attempt: int) -> float:
    """Seconds before the next try: what the endpoint asks for, else 1, 2, 4, ..."""
    try:
        wanted = float(asked or "")
    except ValueError:
        wanted = 2.0 ** (attempt - 1)
    return min(max(wanted, 0.0), _LONGEST_WAIT)


def _failed(url: str, reason: str) -> EngineFailed:
    return EngineFailed(f"{url} did not answer: {reason}", code="evaluation.endpoint")
