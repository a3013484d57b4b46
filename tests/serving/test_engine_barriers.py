"""What breaks for one request breaks for no other, and nothing of it stays behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from foreword.artifact import Digest, PromptFormat, Site
from foreword.errors import ForewordError, UsageError
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.loading import LoadedPrefix
from foreword.serving.contract import AdapterSet, Chunk, Constraint, GenerateRequest
from foreword.serving.engine import engine as engine_module
from foreword.serving.engine.choice import sampling
from foreword.serving.engine.choice.constrain import Matcher
from foreword.serving.engine.choice.sampling import Chosen, RowSampler
from foreword.serving.engine.engine import Engine, EngineSettings, Failure
from foreword.serving.engine.model.rows import Arena, Row
from foreword.serving.engine.residency.held import HeldPrefixes
from tests.reliability.marked import BARE, marked_base, marked_prefix, token
from tests.tiny import tiny_base

VOICE = 1
PROMPT = tuple(token(marker, VOICE) for marker in (40, 50, 60))
WHOSE, HARMFUL = 7, 8
Said = dict[str, list[int] | ForewordError]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return marked_base()


@pytest.fixture
def engine(base: BaseModel) -> Engine:
    good = marked_prefix(WHOSE, length=4, covers=(0, 1), seed=0)
    # Every number is finite, but no score is: such a prefix passes where it carries no probe.
    lengths = {Site.DECODER: {i: LayerKV(3e38 * kv.key.sign(), kv.value) for _, i, kv in good}}
    prefixes = [_loaded(WHOSE, good), _loaded(HARMFUL, PrefixKV(good.length, lengths))]
    return Engine(base, HeldPrefixes(prefixes), EngineSettings(most_running=4))


def _digest(number: int) -> Digest:
    return Digest.of(bytes([number]))


def _loaded(number: int, kv: PrefixKV) -> LoadedPrefix:
    prompt = PromptFormat("template", "{input}")
    return LoadedPrefix(f"acme/p{number}", "1.0.0", _digest(number), kv, prompt)


def request(name: str, prefix: int | None = None, **more: Any) -> GenerateRequest:
    adapters = AdapterSet(_digest(prefix) if prefix is not None else None)
    asked = GenerateRequest(id=name, prompt=PROMPT, adapters=adapters, max_tokens=3)
    return replace(asked, **more)


def answers(engine: Engine, *requests: GenerateRequest) -> Said:
    """Tokens of each request's first answer, or its error; the engine is whole after every step."""
    said: Said = {}
    for each in requests:
        engine.submit(each, 0.0)
    for _ in range(100):
        if not engine.busy:
            break
        for event in engine.step(0.0):
            hear(said, event)
        engine.check_integrity()
    assert not engine.busy
    assert engine.capacity().running == 0
    return said


def hear(said: Said, event: Chunk | Failure) -> None:
    if isinstance(event, Failure):
        assert event.id not in said or isinstance(said[event.id], list)
        said[event.id] = event.error
        return
    tokens = said.setdefault(event.id, [])
    assert isinstance(tokens, list)
    if event.index == 0:
        tokens += event.tokens


def marked(marker: int) -> list[int]:
    return [token(marker, VOICE)] * 3


def test_a_row_that_cannot_be_sampled_costs_no_other_row_its_token(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(logits: torch.Tensor, rows: Sequence[RowSampler], masks: Any = None) -> Chosen:
        if any(row.sampling.seed == 13 for row in rows):
            raise FloatingPointError("this row cannot be sorted")
        return sampling.choose(logits, rows, masks)

    monkeypatch.setattr(engine_module, "choose", choose)
    broken = request("broken", sampling=replace(request("").sampling, seed=13))
    said = answers(engine, request("with", WHOSE), broken, request("without"))
    assert isinstance(said.pop("broken"), ForewordError)
    assert said == {"with": marked(WHOSE), "without": marked(BARE)}


@pytest.mark.parametrize("tensor", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
def test_rows_that_cannot_be_allocated_now_are_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tensor: int, error: Exception
) -> None:
    calls = iter(range(1000))

    def failing(allocate: Any) -> Any:
        def maybe(*args: Any) -> Any:
            if next(calls) == tensor:
                raise error
            return allocate(*args)

        return maybe

    monkeypatch.setattr(Arena, "_fresh", failing(Arena._fresh))
    monkeypatch.setattr(Arena, "_resized", failing(Arena._resized))
    names = [f"r{i}" for i in range(3)]
    said = answers(engine, *(request(name, WHOSE) for name in names))
    assert said == {name: marked(WHOSE) for name in names}
    assert next(calls) > tensor


def test_a_prefix_that_cannot_be_copied_ends_only_its_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(row: Row, prefix: PrefixKV) -> None:
        raise RuntimeError("copying failed")

    monkeypatch.setattr(Row, "write_prefix", broken)
    said = answers(engine, request("with", WHOSE, n=2), request("without"))
    assert isinstance(said.pop("with"), ForewordError)
    assert said == {"without": marked(BARE)}


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("n", [1, 2])
def test_what_is_not_finite_in_a_row_does_not_reach_the_next_request(
    engine: Engine, pieces: int, n: int
) -> None:
    prompt = PROMPT * 5
    engine.settings = replace(engine.settings, prompt_tokens=-(-len(prompt) // pieces))
    error = answers(engine, request("harmful", HARMFUL, prompt=prompt, n=n))["harmful"]
    assert isinstance(error, ForewordError)
    assert error.code == "engine.no_token"
    said = answers(engine, request("without"), request("with", WHOSE), request("more", WHOSE))
    assert said == {"without": marked(BARE), "with": marked(WHOSE), "more": marked(WHOSE)}


def test_an_id_is_in_use_until_its_end_was_said(engine: Engine) -> None:
    engine.submit(request("same"), 0.0)
    engine.cancel("same")
    with pytest.raises(UsageError) as caught:
        engine.submit(request("same"), 0.0)
    assert caught.value.code == "request.id_in_use"
    (event,) = engine.step(0.0)
    assert isinstance(event, Failure)
    assert answers(engine, request("same")) == {"same": marked(BARE)}


def test_a_request_whose_answers_all_break_fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(matcher: Matcher) -> Any:
        raise RuntimeError("no mask")

    engine = Engine(tiny_base())
    asked = request("both", n=2, prompt=(5, 6), constraint=Constraint("regex", "[a-z]+"))
    engine.prepare(asked)
    monkeypatch.setattr(Matcher, "mask", broken)
    said = answers(engine, asked)  # `hear` refuses a second end
    assert isinstance(said["both"], ForewordError)
