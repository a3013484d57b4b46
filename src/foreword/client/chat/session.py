"""Who is asked and what was said: each model has a conversation of its own.

A prefix that was trained on a template reads one message at a time. When the server says so, only the last
message is sent to it from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from foreword.client.answers import Answer
from foreword.errors import ServingError

ONE_MESSAGE = "prompt.messages"
"""Code of a refusal: this prefix does not read conversations."""
Message = dict[str, str]


class Stream(Protocol):
    first_token: float | None
    seconds: float

    def __iter__(self) -> Iterator[str]: ...

    def answer(self) -> Answer: ...


Send = Callable[[Mapping[str, Any]], Stream]


@dataclass(frozen=True)
class Options:
    """Of every question; None: the server's own."""

    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    user: str | None = None
    """Decides which arm of a release answers."""


@dataclass
class Session:
    """`models` can be switched through; `active` has one name, or two for side by side."""

    send: Send
    models: tuple[str, ...]
    active: tuple[str, ...]
    options: Options = field(default_factory=Options)
    said: dict[str, list[Message]] = field(default_factory=dict)
    single: set[str] = field(default_factory=set)
    """Models that read one message at a time."""

    def next(self) -> str:
        """Switch to the model after this one; gives its name."""
        names = self.models or self.active
        place = names.index(self.active[0]) if self.active[0] in names else -1
        self.active = (names[(place + 1) % len(names)],)
        return self.active[0]

    def use(self, *names: str) -> None:
        """Talk to these from now on."""
        self.active = names
        self.models += tuple(name for name in names if name not in self.models)

    def reset(self) -> None:
        """Forget what was said."""
        self.said.clear()

    def ask(self, model: str, text: str) -> Asking:
        """A question to one model; it becomes part of the conversation when it is answered."""
        return Asking(self, model, text)


@dataclass
class Asking:
    """One question to one model."""

    session: Session
    model: str
    text: str
    stream: Stream | None = None
    answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        """Pieces of the answer.

        Raises:
            ServingError: it was refused or broke off; the conversation is as it was before.
        """
        asked: Message = {"role": "user", "content": self.text}
        history = self.session.said.get(self.model, [])
        alone = self.model in self.session.single
        try:
            yield from self._pieces([asked] if alone else [*history, asked])
        except ServingError as e:
            if e.code != ONE_MESSAGE or alone or not history:
                raise
            self.session.single.add(self.model)
            yield from self._pieces([asked])
        if self.stream is None:
            raise RuntimeError("an answer ended that never began")
        self.answer = self.stream.answer()
        replied: Message = {"role": "assistant", "content": self.answer.text}
        self.session.said[self.model] = [*history, asked, replied]

    def _pieces(self, messages: list[Message]) -> Iterator[str]:
        options = vars(self.session.options)
        given = {name: value for name, value in options.items() if value is not None}
        self.stream = self.session.send({"model": self.model, "messages": messages, **given})
        yield from self.stream
