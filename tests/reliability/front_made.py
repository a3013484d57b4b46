"""The whole front door with real keys, a real tokenizer and a release, before a scripted backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from foreword.serving.contract import Capacity, Chunk, Finish, GenerateRequest, Health, Usage
from foreword.serving.gateway.access import keys
from foreword.serving.gateway.access.tenants import Tenant
from foreword.serving.gateway.app import Lobby, gateway
from foreword.serving.gateway.edge import Edge, EdgeSettings, edge
from foreword.serving.gateway.edge.types import App
from foreword.serving.gateway.front import Front
from foreword.serving.gateway.limits.quotas import Quotas
from foreword.serving.gateway.prompting import Prompter
from foreword.telemetry.records import Record
from tests.gateway.routing.made import HERE, Door, access_of, released, table_of
from tests.reliability.report import ROOT

CONTEXT = 8_192
ENDLESS = 4_096
"""Whoever wants so many tokens gets large ones, ten times a second."""
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}<|im_start|>assistant\n"
)


class Scripted:
    """A backend that says `word` every `pause` seconds until `max_tokens`, and never thinks."""

    def __init__(self, pause: float, *, breaks: bool) -> None:
        """`breaks`: it has a fault, so that whoever looks for some has one to find."""
        self.pause, self.breaks = pause, breaks
        self.running = 0
        self.cancelled = 0

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        endless = request.max_tokens >= ENDLESS
        text, pause = ("w" * 8_000, 0.1) if endless else ("word ", self.pause)
        if self.breaks:
            raise RuntimeError("it breaks")
        usage = Usage(len(request.prompt), 0, request.max_tokens)
        self.running += 1
        done = False
        try:
            for place in range(request.max_tokens):
                await asyncio.sleep(pause)
                last = place == request.max_tokens - 1
                for index in range(request.n):
                    yield Chunk(request.id, index, text, (1,), request.adapters,
                                finish=Finish.LENGTH if last else None,
                                usage=usage if last else None)  # fmt: skip
            done = True
        finally:
            self.running -= 1
            self.cancelled += not done

    def cancel(self, request_id: str) -> None:
        """Closing a stream is enough."""

    def capacity(self) -> Capacity:
        return Capacity(self.running, 0, 1_000, 0, 0, 0, 0)

    def health(self) -> Health:
        return Health("ready", None)


@dataclass(frozen=True)
class Made:
    edge: Edge
    app: App
    """What stands behind the edge."""
    key: str
    backend: Scripted
    records: list[Record]


def made(settings: EdgeSettings, *, pause: float = 0.005, breaks: bool = False) -> Made:
    """One tenant, acme, with a released prefix, the bare model, and one key."""
    now = datetime.now(UTC)
    text, record = keys.issue("acme", now)
    access = access_of(Tenant("acme", base=True), keys={record.id: record})
    backend, records = Scripted(pause, breaks=breaks), list[Record]()
    front = Front(
        HERE,
        Prompter(tokenizer(), CONTEXT),
        Door(table_of(released("acme/support")), access).router,
        Quotas(access.limits_of),
        backend,
        records.append,
    )
    app = gateway(front, Lobby(backend.health, dict))
    guarded = edge(app, settings, lambda header: keys.believe(access, header, datetime.now(UTC)))
    return Made(guarded, app, text, backend, records)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as the bases have it, with 8,000 tokens learnt from our own documents."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8_000,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md"))
    inner.train_from_iterator((path.read_text() for path in texts), trainer)
    made_ = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")
    made_.add_special_tokens({"additional_special_tokens": special})
    made_.chat_template = _CHAT
    return made_
