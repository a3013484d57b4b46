"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreword.serving.contract import Usage
from foreword.serving.gateway.prompting import Prompter, Tokens, Way
from foreword.serving.gateway.story import Operation
from foreword.serving.wire.answers import Answered, Head, chat_answer
from foreword.serving.wire.asks import ChatAsk, parse_chat
from foreword.serving.wire.events import ChatEvents
from foreword.serving.wire.logprobs import Spell


class Chat:
    """One conversation, one prompt."""

    operation: Operation = "chat"
    id_start = "chatcmpl-"

    def parse(self, body: bytes) -> ChatAsk:
        return parse_chat(body)

    async def prompts(self, prompter: Prompter, ask: ChatAsk, way: Way) -> Sequence[Tokens]:
        return [await prompter.chat(ask.messages, ask.tools, way)]

    def whole(
        self, head: Head, answers: Sequence[Answered], usage: Usage, spell: Spell, ask: ChatAsk
    ) -> dict[str, Any]:
        return chat_answer(head, answers, usage, spell, ask.tool_names)

    def events(self, head: Head, answers: int, spell: Spell, ask: ChatAsk) -> ChatEvents:
        return ChatEvents(
            head, spell, answers, include_usage=ask.include_usage, tools=ask.tool_names
        )
