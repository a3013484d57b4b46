"""A gateway whose engine is another process. It has the base's tokenizer and neither torch nor weights."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from foreword.artifact import BaseRef
from foreword.errors import CompatibilityError
from foreword.prefix.bases import locate
from foreword.prefix.files import has_weights, identify, load_tokenizer
from foreword.prefix.fingerprint import tokenizer_digest
from foreword.serving.contract import Health
from foreword.serving.gateway.prompting import Prompter
from foreword.serving.server.doors import bind_both, gateway_doors, tell
from foreword.serving.server.house import Behind, Model, house, open_registry
from foreword.serving.server.keys import open_store
from foreword.serving.server.process import Say, serve
from foreword.serving.server.secret import secret_of
from foreword.serving.server.settings import ServeSettings
from foreword.serving.upstream.asking import ask_base
from foreword.serving.upstream.client import HttpBackend

_ALIVE = Health("ready", None)
"""Whatever its engine does: starting a gateway anew does not bring one back."""


def run_gateway(settings: ServeSettings, place: Path, say: Say) -> None:
    """
    Raises:
        ForewordError: as `run`.
    """
    with ExitStack() as opened:
        store = open_store(settings)
        registry = opened.enter_context(open_registry(settings.registry))
        secret, sockets, url = secret_of(settings), bind_both(settings), settings.engine.url
        base = ask_base(
            url, secret, settings.engine.start_seconds, lambda: say(f"waiting for {url}")
        )
        prompter = Prompter(tokenizer_of(settings.base, base), base.context)
        model = Model(base.id, base.fingerprint, base.context, prompter)
        backend = HttpBackend(url, secret, base.fingerprint)
        behind = Behind(backend, backend, lambda: _ALIVE)
        built = opened.enter_context(house(settings, store, registry, model, behind, place))
        doors = gateway_doors(settings, built, backend, sockets)

        async def run() -> None:
            async with backend:
                await serve(built, doors, settings.grace, ready, say)

        def ready() -> None:
            tell(settings, built, model, doors, say)
            say(f"its engine is at {url}")

        asyncio.run(run())


def tokenizer_of(ref: str, engine: BaseRef) -> PreTrainedTokenizerBase:
    """The tokenizer of a base that the engine runs too.

    Raises:
        CompatibilityError: there is none, or the engine runs another base (`serve.base`).
    """
    directory = locate(ref)
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise CompatibilityError(
            f"{directory} has no tokenizer files; a gateway needs them, and the weights it does not",
            code="base.no_tokenizer",
        )
    _require_same(f"the tokenizer of {ref}", tokenizer_digest(tokenizer), engine.tokenizer)
    if has_weights(directory):
        _require_same(f"the base {ref}", identify(ref).fingerprint, engine.fingerprint)
    return tokenizer


def _require_same(what: str, here: object, there: object) -> None:
    if here != there:
        raise CompatibilityError(
            f"{what} is {here} here and {there} at the engine; give both the same --base",
            code="serve.base",
        )
