"""Answers as they are read: whole ones, and streamed ones line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foreword.client.receipt import Receipt, read_receipt, receipts_differ
from foreword.errors import ServingError

_DATA = "data:"
_DONE = "[DONE]"


@dataclass(frozen=True)
class Answer:
    text: str
    receipt: Receipt
    tokens: int
    """Of the answer."""
    finish: str


class Reading:
    """A streamed chat answer. Give it every line of the response, then ask for the answer."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._receipts: list[Receipt] = []
        self._tokens, self._finish = 0, ""
        self._done = False

    def take(self, line: str) -> str:
        """The text that a line brings; most lines bring none.

        Raises:
            ServingError: the server says that the answer failed, or says what nobody understands.
        """
        if not line.startswith(_DATA):
            return ""
        data = line.removeprefix(_DATA).strip()
        if data == _DONE:
            self._done = True
            return ""
        document = _document(data)
        if "error" in document:
            raise problem(document)
        return self._read(document)

    def answer(self) -> Answer:
        """
        Raises:
            ServingError: it broke off (`client.cut_off`), or has no receipt or two that differ.
        """
        if not self._done:
            raise ServingError(
                "the server ended an answer in the middle; ask again", code="client.cut_off"
            )
        if len(set(self._receipts)) != 1:
            raise receipts_differ() if self._receipts else strange()
        return Answer("".join(self._parts), self._receipts[0], self._tokens, self._finish)

    def _read(self, document: Mapping[str, Any]) -> str:
        try:
            if document.get("foreword") is not None:
                self._receipts.append(read_receipt(document["foreword"]))
            if document.get("usage") is not None:
                self._tokens = int(document["usage"]["completion_tokens"])
            text = ""
            for choice in document["choices"]:
                text += choice["delta"].get("content") or ""
                self._finish = choice["finish_reason"] or self._finish
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise strange() from e
        self._parts.append(text)
        return text


def read_whole(body: bytes) -> Answer:
    """A `chat.completion`.

    Raises:
        ServingError: it is none (`client.answer`), or has no receipt.
    """
    document = _document(body)
    try:
        choice = document["choices"][0]
        text, finish = choice["message"]["content"] or "", choice["finish_reason"]
        tokens = int(document["usage"]["completion_tokens"])
    except (KeyError, IndexError, TypeError, ValueError) as e:
        raise strange() from e
    return Answer(str(text), read_receipt(document.get("foreword")), tokens, str(finish))


def read_refusal(status: int, body: bytes) -> ServingError:
    """The error of a response that is no answer."""
    try:
        return problem(_document(body))
    except ServingError:
        return ServingError(f"it answered with status {status}", code=f"http.{status}")


def problem(document: Mapping[str, Any]) -> ServingError:
    """What a document says under `error`, with the server's own code."""
    error = document.get("error")
    if not isinstance(error, Mapping) or not isinstance(error.get("message"), str):
        return strange()
    return ServingError(error["message"], code=str(error.get("code") or "client.refused"))


def strange() -> ServingError:
    return ServingError(
        "the server answered something that is no chat completion; expected a Foreword server",
        code="client.answer",
    )


def _document(data: str | bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise strange() from e
    if not isinstance(document, Mapping):
        raise strange()
    return document
