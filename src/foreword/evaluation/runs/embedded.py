"""The embedded engine as a `Generate`: rows of all variants share its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from foreword.artifact import Digest
from foreword.errors import PrefixUnavailable, UsageError
from foreword.evaluation.golden import GoldenRow
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.ask import Ask, Finished, Generate
from foreword.evaluation.runs.decoding import Decoding

if TYPE_CHECKING:
    from foreword.prefix.base_model import BaseModel
    from foreword.prefix.loading import LoadedPrefix
    from foreword.serving.generation import Completion, GenerationRequest

ROUTE = "engine"


def embedded(base: BaseModel, prefixes: Mapping[Digest, LoadedPrefix]) -> Generate:
    """A function that answers with this base and these prefixes."""

    def run(asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        from foreword.serving.generation import generate

        def done(place: int, said: Completion) -> None:
            answer = Answer(said.text, said.digest, len(said.token_ids), said.seconds)
            finished(place, answer)

        generate(
            base,
            [_request(ask, prefixes) for ask in asks],
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            seed=decoding.seed,
            finished=done,
        )

    return run


def engine_name() -> str:
    """The embedded engine with the versions its answers depend on."""
    packages = ("foreword", "torch", "transformers", "tokenizers")
    return "embedded " + ", ".join(f"{name} {version(name)}" for name in packages)


def _request(ask: Ask, prefixes: Mapping[Digest, LoadedPrefix]) -> GenerationRequest:
    from foreword.serving.generation import GenerationRequest

    digest = ask.variant.digest
    if digest is not None and digest not in prefixes:
        raise PrefixUnavailable(
            f"the prefix {digest} of the variant {ask.variant.name!r} was not loaded",
            code="evaluation.not_loaded",
        )
    prefix = prefixes[digest] if digest is not None else None
    return GenerationRequest(_columns(ask.row), prefix, ask.variant.prompt)


def _columns(row: GoldenRow) -> Mapping[str, str]:
    if not row.messages:
        return row.columns
    if len(row.messages) == 1:
        return {"input": row.messages[0].content}
    raise UsageError(
        f"row {row.id!r} is a conversation of {len(row.messages)} messages; the engine alone takes one "
        "input, so judge such rows through an endpoint (`foreword serve`)",
        code="evaluation.messages",
    )
