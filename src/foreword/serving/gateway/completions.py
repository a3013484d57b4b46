"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreword.serving.contract import Usage
from foreword.serving.gateway.prompting import Prompter, Tokens, Way
from foreword.serving.gateway.story import Operation
from foreword.serving.wire.answers import Answered, Head, completion_answer
from foreword.serving.wire.asks import CompletionAsk, parse_completion
from foreword.serving.wire.events import CompletionEvents
from foreword.serving.wire.logprobs import Spell


class Completions:
    """One prompt or several, each a text or token ids."""

    operation: Operation = "completion"
    id_start = "cmpl-"

    def parse(self, body: bytes) -> CompletionAsk:
        return parse_completion(body)

    async def prompts(self, prompter: Prompter, ask: CompletionAsk, way: Way) -> Sequence[Tokens]:
        return await prompter.texts(ask.prompts, way)

    def whole(
        self, head: Head, answers: Sequence[Answered], usage: Usage, spell: Spell,
        ask: CompletionAsk,
    ) -> dict[str, Any]:  # fmt: skip
        return completion_answer(head, answers, usage, spell)

    def events(
        self, head: Head, answers: int, spell: Spell, ask: CompletionAsk
    ) -> CompletionEvents:
        return CompletionEvents(head, spell, answers, include_usage=ask.include_usage)
