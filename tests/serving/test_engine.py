"""What an engine promises: the right answers, in their time, to everybody, whatever else runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from foreword.artifact import Digest
from foreword.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    ForewordError,
    Overloaded,
    PrefixUnavailable,
    PromptTooLong,
    UsageError,
)
from foreword.prefix.base_model import BaseModel
from foreword.serving.contract import (
    BARE,
    AdapterSet,
    Constraint,
    Finish,
    GenerateRequest,
    Sampling,
)
from foreword.serving.engine.engine import Engine, EngineSettings
from foreword.serving.engine.model.attention import Piece
from foreword.serving.engine.model.runner import ModelRunner
from foreword.serving.engine.residency.store import Budgets, PrefixStore
from foreword.serving.engine.waiting.queue import Limits
from tests.serving.asking import (
    Driver,
    answers,
    ask,
    engine_with,
    greedy,
    held,
    loaded,
    logits_of,
    text,
    wide_base,
)
from tests.serving.prefix_samples import Source, artifact, kv
from tests.tiny import tiny_base

WARM = Sampling(temperature=1.0, seed=7)
VARIED = Sampling(repetition_penalty=5.0)
"""Greedy, but a random model does not say one word only."""


@cache
def shared_base() -> BaseModel:
    return tiny_base()


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return shared_base()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[Piece]]:
    """Everything that is run from now on, step by step."""
    seen: list[list[Piece]] = []
    run = ModelRunner.run

    def watched(runner: ModelRunner, pieces: Sequence[Piece]) -> Tensor:
        seen.append(list(pieces))
        return run(runner, pieces)

    monkeypatch.setattr(ModelRunner, "run", watched)
    return seen


def cast(base: BaseModel) -> list[Any]:
    return [loaded(base, 1, 3), loaded(base, 2, 8), None, loaded(base, 3, 1), loaded(base, 4, 20)]


def many(base: BaseModel, count: int, **options: Any) -> list[GenerateRequest]:
    """Requests of different prefixes, prompts and lengths."""
    who = cast(base)
    defaults = {"sampling": VARIED} | options
    return [
        ask(text(1 + 5 * i % 13, i), who[i % 5], **{"max_tokens": 2 + 3 * i % 7} | defaults)
        for i in range(count)
    ]


def engine_for(base: BaseModel, **settings: Any) -> Engine:
    return engine_with(base, *(p for p in cast(base) if p), **{"share_from": 16} | settings)


def each_alone(base: BaseModel, requests: Sequence[GenerateRequest]) -> list[list[int]]:
    """Each in a new engine, with nothing else in it."""
    return [answers(engine_for(base), request)[0] for request in requests]


def ended_by(driver: Driver, request: GenerateRequest, error: type[ForewordError]) -> ForewordError:
    found = driver.heard[request.id].error
    assert isinstance(found, error)
    return found


# --- batching ------------------------------------------------------------------------------------


def test_answers_are_the_models_own_with_each_requests_prefix(base: BaseModel) -> None:
    by_digest = {p.digest: p.kv for p in cast(base) if p}
    requests = many(base, 10, sampling=Sampling())
    for request, said in zip(requests, answers(engine_for(base), *requests), strict=True):
        prefix = by_digest[request.adapters.prefix] if request.adapters.prefix else None
        assert said == greedy(base, prefix, request.prompt, request.max_tokens)


@settings(max_examples=15)
@given(joining=st.lists(st.integers(0, 3), max_size=20), budget=st.sampled_from([1, 5, 64]))
def test_who_joins_and_leaves_at_any_step_changes_nothing(joining: list[int], budget: int) -> None:
    base = shared_base()
    requests = many(base, 12)
    engine = engine_for(base, most_running=5, prompt_tokens=budget, kv_bytes=1 << 20)
    driver, waiting = Driver(engine), list(requests)
    for count in joining:
        driver.submit(*waiting[:count])
        del waiting[:count]
        driver.step()
    driver.run(*waiting)
    assert [driver.heard[r.id].tokens() for r in requests] == twelve_alone()


@cache
def twelve_alone() -> list[list[int]]:
    return each_alone(shared_base(), many(shared_base(), 12))


def test_every_chunk_says_which_prefix_answered(base: BaseModel) -> None:
    requests = many(base, 6)
    for request, heard in zip(requests, Driver(engine_for(base)).run(*requests), strict=True):
        assert {chunk.adapters for chunk in heard.chunks[0]} == {request.adapters}
        assert {chunk.id for chunk in heard.chunks[0]} == {request.id}


def test_every_decoding_answer_gets_a_token_in_every_step_beside_a_long_prompt(
    base: BaseModel,
) -> None:
    driver = Driver(engine_for(base, prompt_tokens=4))
    decoding = [ask(text(2, i), max_tokens=30) for i in range(3)]
    driver.submit(*decoding)
    driver.step()
    driver.step()
    long = ask(text(50), max_tokens=2)
    driver.submit(long)
    for _ in range(50 // 4):
        assert {event.id for event in driver.step()} == {r.id for r in decoding}
    assert long.id in {event.id for event in driver.step()}


def test_prompts_take_no_more_of_a_step_than_their_budget(
    base: BaseModel, steps: list[list[Piece]]
) -> None:
    driver = Driver(engine_for(base, prompt_tokens=7))
    del steps[:]
    prompts = [text(n, n) for n in (20, 3, 9, 12)]
    driver.run(*(ask(prompt, max_tokens=4) for prompt in prompts))
    rows = {id(piece.row) for step in steps for piece in step}
    for step in steps:
        decoding = sum(len(p.tokens) == 1 for p in step)
        assert sum(len(p.tokens) for p in step) - decoding <= 7
        assert len({id(piece.row) for piece in step}) == len(step), "a row runs once in a step"
    assert sum(len(p.tokens) for step in steps for p in step) == sum(map(len, prompts)) + 4 * 3
    assert len(rows) == 4


def test_prompts_are_read_in_the_order_of_admission(base: BaseModel) -> None:
    driver = Driver(engine_for(base, prompt_tokens=10))
    first, second = ask(text(25, 1)), ask(text(25, 2))
    driver.run(first, second)
    assert list(driver.heard) == [first.id, second.id]


# --- several answers -----------------------------------------------------------------------------


def test_greedy_answers_of_one_request_are_equal_and_sampled_ones_differ(base: BaseModel) -> None:
    prefix = cast(base)[1]
    cold = ask(text(6), prefix, n=3, max_tokens=8)
    warm = ask(text(6), prefix, n=3, max_tokens=8, sampling=WARM)
    cold_heard, warm_heard = Driver(engine_for(base)).run(cold, warm)
    expected = greedy(base, prefix.kv, cold.prompt, 8)
    assert [cold_heard.tokens(i) for i in range(3)] == [expected] * 3
    assert len({tuple(warm_heard.tokens(i)) for i in range(3)}) == 3
    assert {cold_heard.usage(i).completion_tokens for i in range(3)} == {8}


def test_all_rows_of_a_request_are_taken_and_given_back(base: BaseModel) -> None:
    engine = engine_for(base)
    driver = Driver(engine)
    driver.submit(ask(text(20), n=5, max_tokens=3, sampling=WARM))
    driver.step()
    assert engine.capacity().running == 5
    driver.run()
    assert engine.capacity().running == 0


def test_an_answer_that_ends_early_frees_its_row_and_the_others_go_on(base: BaseModel) -> None:
    engine = engine_for(base)
    driver = Driver(engine)
    request = ask(text(6), n=4, max_tokens=8, sampling=WARM)
    plain = driver.run(request)[0]
    ends = plain.tokens(0)[2]
    stopped = replace(request, id="stopped", stop_ids=(ends,))
    driver.submit(stopped)
    rows = []
    while engine.busy:
        driver.step()
        rows.append(engine.capacity().running)
    assert rows == sorted(rows, reverse=True)
    assert 0 < rows[3] < 4
    for i in range(4):
        said = plain.tokens(i)
        kept = said[: said.index(ends)] if ends in said else said
        assert driver.heard["stopped"].tokens(i) == kept


# --- seeds ---------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(base: BaseModel) -> None:
    requests = many(base, 10, n=2, sampling=replace(WARM, top_p=0.9, top_k=40))
    together = Driver(engine_for(base, prompt_tokens=9)).run(*requests)
    for request, heard in zip(requests, together, strict=True):
        [alone] = Driver(engine_for(base)).run(request)
        assert [heard.tokens(i) for i in range(2)] == [alone.tokens(i) for i in range(2)]


def test_no_seed_and_another_seed_give_other_tokens(base: BaseModel) -> None:
    seeds = (1, 2, None, None)
    requests = [
        ask(text(5), max_tokens=12, sampling=Sampling(temperature=1.0, seed=s)) for s in seeds
    ]
    said = answers(engine_for(base), *requests)
    assert len({tuple(each) for each in said}) == 4


# --- where an answer ends ------------------------------------------------------------------------


def test_a_stop_text_ends_the_answer_and_is_not_shown(base: BaseModel) -> None:
    request = ask(text(5), max_tokens=12, sampling=VARIED)
    [plain] = Driver(engine_for(base)).run(request)
    whole = plain.text()
    for stop in (whole[3:5], whole[4], whole[:2]):
        stopped = replace(request, stop=("nowhere to be found", stop))
        [heard] = Driver(engine_for(base)).run(stopped)
        assert heard.text() == whole[: whole.index(stop)]
        assert heard.finish() is Finish.STOP


def test_the_beginning_of_a_stop_text_that_does_not_come_is_shown(base: BaseModel) -> None:
    request = ask(text(5), max_tokens=8, sampling=VARIED)
    [plain] = Driver(engine_for(base)).run(request)
    [heard] = Driver(engine_for(base)).run(replace(request, stop=(plain.text()[-2:] + "...",)))
    assert (heard.text(), heard.finish()) == (plain.text(), Finish.LENGTH)


def test_stop_ids_and_the_models_own_end_are_no_part_of_the_answer(base: BaseModel) -> None:
    request = ask(text(5), max_tokens=8, sampling=VARIED)
    [plain] = answers(engine_for(base), request)
    [heard] = Driver(engine_for(base)).run(replace(request, stop_ids=(plain[4],)))
    assert heard.tokens() == plain[:4]
    assert (heard.finish(), heard.usage().completion_tokens) == (Finish.STOP, 5)


def test_the_models_own_end_counts_unless_it_is_ignored() -> None:
    base = tiny_base()
    base.model.lm_head.weight[2] = 100 * base.model.lm_head.weight[2]
    prompt = next(t for t in (text(5, i) for i in range(99)) if greedy(base, None, t, 1) == [2])
    going, ending = ask(prompt, max_tokens=4), ask(prompt, max_tokens=4, ignore_eos=False)
    engine = engine_for(base)
    first, second = Driver(engine).run(going, ending)
    assert first.tokens()[0] == 2
    assert (first.finish(), len(first.tokens())) == (Finish.LENGTH, 4)
    assert (second.finish(), second.tokens(), second.text()) == (Finish.STOP, [], "")


@pytest.mark.parametrize("most", [1, 2, 9])
def test_max_tokens_is_the_length(base: BaseModel, most: int) -> None:
    [heard] = Driver(engine_for(base)).run(ask(text(5), max_tokens=most))
    assert (len(heard.tokens()), heard.finish()) == (most, Finish.LENGTH)
    assert heard.usage().prompt_tokens == 5


def test_the_context_may_be_filled_to_the_last_position(base: BaseModel) -> None:
    prefix = cast(base)[1]
    fits = ask(text(64 - 8 - 4), prefix, max_tokens=4)
    engine = engine_for(base)
    assert answers(engine, fits)[0] == greedy(base, prefix.kv, fits.prompt, 4)
    driver = Driver(engine)
    over = replace(fits, id="over", max_tokens=5)
    driver.run(over)
    ended_by(driver, over, PromptTooLong)


# --- log-probabilities ---------------------------------------------------------------------------


def test_logprobs_are_those_of_the_models_own_distribution(base: BaseModel) -> None:
    prefix = cast(base)[0]
    warm = ask(text(5), prefix, max_tokens=6, logprobs=3, sampling=replace(WARM, temperature=2.0))
    heard, *_ = Driver(engine_for(base)).run(warm, *many(base, 5))
    expected = logits_of(base, prefix.kv, [*warm.prompt, *heard.tokens()])[4:-1].log_softmax(-1)
    assert [said.token for said in heard.logprobs()] == heard.tokens()
    for said, row in zip(heard.logprobs(), expected, strict=True):
        assert said.logprob == pytest.approx(float(row[said.token]), abs=1e-4)
        best = row.topk(3)
        assert [token for token, _ in said.alternatives] == best.indices.tolist()
        assert [p for _, p in said.alternatives] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_logprobs_come_only_when_asked_for(base: BaseModel) -> None:
    none, bare = Driver(engine_for(base)).run(ask(text(5)), ask(text(5), logprobs=0))
    assert none.logprobs() == []
    assert [said.alternatives for said in bare.logprobs()] == [()] * 6


# --- constraints ---------------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["ada", "bob"]}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_constrained_answers_are_valid_whatever_the_model_would_say() -> None:
    base = wide_base()
    schema = Constraint("json_schema", json.dumps(PERSON))
    regex = Constraint("regex", r"(yes|no), [0-9]{2,4}\.")
    who = cast(base)
    requests = [
        ask(text(5, i), who[i % 5], constraint=how, ignore_eos=False, max_tokens=200, n=2,
            sampling=Sampling(temperature=(i % 2) * 1.5, seed=i))
        for i in range(4)
        for how in (schema, regex)
    ]  # fmt: skip
    free = many(base, 3)
    engine = engine_for(base)
    heard = Driver(engine).run(*requests, *free)
    for request, each in zip(requests, heard, strict=False):
        for i in range(2):
            assert each.finish(i) is Finish.STOP
            if request.constraint == regex:
                assert re.fullmatch(regex.text, each.text(i))
            else:
                said = json.loads(each.text(i))
                assert said["name"] in ("ada", "bob")
                assert said["age"] <= 99
    assert [each.tokens() for each in heard[-3:]] == each_alone(base, free)


def test_a_constraint_that_cannot_be_followed_is_refused_when_it_comes(base: BaseModel) -> None:
    engine = engine_for(base)
    with pytest.raises(UsageError) as caught:
        engine.submit(ask(text(3), constraint=Constraint("regex", "(?=a)b")), 0.0)
    assert caught.value.code == "request.constraint"
    assert not engine.busy


def test_a_base_without_a_tokenizer_answers_in_tokens_and_takes_no_constraint() -> None:
    base = BaseModel.from_model(tiny_base().model)
    engine = engine_for(base)
    [heard] = Driver(engine).run(ask(text(5)))
    assert (heard.text(), len(heard.tokens())) == ("", 6)
    with pytest.raises(UsageError, match="no tokenizer"):
        engine.submit(ask(text(3), constraint=Constraint("regex", "a")), 0.0)


# --- the end of a request before its answer ------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2, 6, 9])
def test_cancelled_in_any_phase_it_runs_in_no_further_step(
    base: BaseModel, steps: list[list[Piece]], after: int
) -> None:
    # 0: waiting; 1 and 2: its prompt is read; later: its three answers are decoded.
    engine = engine_for(base, prompt_tokens=10)
    driver = Driver(engine)
    gone = ask(text(20, 1), cast(base)[4], n=3, max_tokens=20, sampling=WARM)
    other = ask(text(4, 2), cast(base)[0], max_tokens=14, sampling=VARIED)
    driver.submit(other, gone)
    for _ in range(after):
        driver.step()
    engine.cancel(gone.id)
    engine.check_integrity()
    assert not engine.knows(gone.id)
    del steps[:]
    driver.run()
    assert all(len(step) == 1 for step in steps)
    ended_by(driver, gone, Cancelled)
    assert driver.heard[other.id].tokens() == each_alone(base, [other])[0]


def test_cancelling_what_is_not_there_is_nothing(base: BaseModel) -> None:
    engine = engine_for(base)
    request = ask(text(3))
    answers(engine, request)
    engine.cancel(request.id)
    engine.cancel("nobody")
    assert not engine.busy


def test_a_deadline_ends_a_request_where_it_is(base: BaseModel) -> None:
    driver = Driver(engine_for(base, most_running=1))
    running = ask(text(5, 1), max_tokens=40, deadline=driver.now + 0.105)
    waiting = ask(text(5, 2), deadline=driver.now + 0.055)
    later = ask(text(5, 3))
    driver.run(running, waiting, later)
    ended_by(driver, running, DeadlineExceeded)
    ended_by(driver, waiting, DeadlineExceeded)
    assert len(driver.heard[running.id].tokens()) == 10
    assert driver.heard[waiting.id].tokens() == []
    assert len(driver.heard[later.id].tokens()) == 6
    with pytest.raises(DeadlineExceeded):
        driver.submit(ask(text(3), deadline=driver.now))


def test_closing_ends_everything_that_is_left(base: BaseModel) -> None:
    driver = Driver(engine_for(base, most_running=2))
    requests = many(base, 5, max_tokens=20)
    driver.submit(*requests)
    driver.step()
    driver.engine.close()
    while driver.engine.busy:
        driver.step()
    for request in requests:
        ended_by(driver, request, Cancelled)
    assert driver.engine.capacity().running == 0


# --- limits --------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_says_when_to_come_back(base: BaseModel) -> None:
    engine = engine_for(base, queue=Limits(total=3, per_tenant=2))
    driver = Driver(engine)
    kept = [ask(text(3, i)) for i in range(2)]
    driver.submit(*kept)
    with pytest.raises(Overloaded) as caught:
        driver.submit(ask(text(3)))
    assert caught.value.retry_after is not None
    driver.submit(ask(text(3), tenant="other"))
    with pytest.raises(Overloaded):
        driver.submit(ask(text(3), tenant="third"))
    driver.run()
    assert [len(driver.heard[r.id].tokens()) for r in kept] == [6, 6]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"max_tokens": 0}, "request.max_tokens"),
        ({"prompt": ()}, "request.prompt"),
        ({"prompt": (128,)}, "request.prompt"),
        ({"prompt": (-1,)}, "request.prompt"),
        ({"n": 5}, "request.n"),
        ({"max_tokens": 64}, "prompt.too_long"),
        ({"stop_ids": (128,)}, "request.stop"),
        ({"sampling": Sampling(top_p=0.0)}, "request.sampling"),
    ],
)
def test_what_can_never_be_answered_is_refused_when_it_comes(
    base: BaseModel, options: dict[str, Any], code: str
) -> None:
    engine = engine_for(base, most_running=4)
    with pytest.raises(UsageError) as caught:
        engine.submit(replace(ask(text(3)), **options), 0.0)
    assert caught.value.code == code
    assert not engine.busy


def test_what_never_fits_the_memory_is_refused(base: BaseModel) -> None:
    row = 64 * base.geometry.values_per_token() * 4
    engine = engine_for(base, kv_bytes=2 * row)
    with pytest.raises(UsageError) as caught:
        engine.submit(ask(text(3), n=3), 0.0)
    assert caught.value.code == "request.too_large"
    assert len(answers(engine, ask(text(3), n=2))[0]) == 6


def test_an_id_in_use_is_refused_and_the_first_request_goes_on(base: BaseModel) -> None:
    driver = Driver(engine_for(base, most_running=1))
    running, waiting = ask(text(5, 1)), ask(text(5, 2))
    driver.submit(running, waiting)
    driver.step()
    for taken in (running, waiting):
        with pytest.raises(UsageError) as caught:
            driver.submit(replace(taken, prompt=text(3)))
        assert caught.value.code == "request.id_in_use"
    driver.run()
    assert all(len(driver.heard[r.id].tokens()) == 6 for r in (running, waiting))


@pytest.mark.parametrize("wrong", [{"most_running": 0}, {"kv_bytes": 0}, {"prompt_tokens": -1}])
def test_settings_that_let_nothing_run_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EngineSettings(**wrong)


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_with_little_memory_everybody_waits_and_everybody_is_answered(rows: int) -> None:
    # A context of 256, so that requests need rows of different capacities.
    base = wide_base()
    row = 64 * base.geometry.values_per_token() * 4
    sizes = [n for n in (5, 70, 20, 150, 8, 40, 100, 3) if n + 6 <= 64 * rows]
    engine = engine_with(base, kv_bytes=rows * row, prompt_tokens=64)
    requests = [
        ask(text(n, i), tenant=f"t{i % 3}", sampling=VARIED)
        for i, n in enumerate(sizes * 2)
        if 1 << (n + 5).bit_length() <= 64 * rows
    ]
    driver = Driver(engine)
    driver.submit(*requests)
    most = 0
    while engine.busy:
        driver.step(0.1)
        most = max(most, engine.capacity().kv_bytes)
    assert most <= rows * row
    roomy = answers(engine_with(base), *(replace(r, id=f"{r.id}'") for r in requests))
    assert [driver.heard[r.id].tokens() for r in requests] == roomy


# --- fairness ------------------------------------------------------------------------------------


def test_a_hundred_requests_of_one_tenant_do_not_delay_anothers_first(base: BaseModel) -> None:
    driver = Driver(engine_for(base, most_running=4))
    driver.submit(*(ask(text(5, i), tenant="loud") for i in range(100)))
    driver.step()
    quiet = ask(text(5), tenant="quiet")
    driver.submit(quiet)
    while driver.engine.knows(quiet.id):
        driver.step()
    done = sum(heard.finish() is not None for heard in driver.heard.values())
    assert done <= 4 + 4, "those that ran when it came, itself, and those beside it"


def test_both_of_two_busy_tenants_get_half(base: BaseModel) -> None:
    driver = Driver(engine_for(base, most_running=3))
    driver.submit(*(ask(text(5, i), tenant="many") for i in range(60)))
    few = [ask(text(5, i), tenant="few") for i in range(15)]
    driver.submit(*few)
    while any(driver.engine.knows(request.id) for request in few):
        driver.step()
    finished = sum(heard.finish() is not None for heard in driver.heard.values())
    assert 28 <= finished <= 34


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["prompt", "decoding"])
def test_a_row_that_breaks_a_step_fails_alone(
    base: BaseModel, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose = loaded(base, 8, 5)
    bad, others = ask(text(6), whose, n=2), many(base, 6, max_tokens=6)
    engine = engine_with(base, whose, *(p for p in cast(base) if p), share_from=16)
    run = ModelRunner.run

    def broken(runner: ModelRunner, pieces: Sequence[Piece]) -> Tensor:
        if any(
            p.prefix is whose.kv and (kind == "decoding") == (len(p.tokens) == 1) for p in pieces
        ):
            raise RuntimeError("no memory, say")
        return run(runner, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "run", broken)
        driver = Driver(engine)
        driver.run(bad, *others)
    assert ended_by(driver, bad, EngineFailed).code == "serving.engine_failed"
    assert [driver.heard[r.id].tokens() for r in others] == each_alone(base, others)
    assert answers(engine, replace(bad, id="again"))[0] == greedy(base, whose.kv, bad.prompt, 6)


POISON = 3
"""A token whose embedding is no number, in `poisoned_base`; nobody says it by chance."""


def poisoned_base() -> BaseModel:
    base = tiny_base()
    base.model.model.embed_tokens.weight[POISON] = float("nan")
    base.model.lm_head.weight[POISON] = 0.0
    return base


def test_rows_that_break_in_one_step_leave_nothing_where_they_were() -> None:
    # The first to be given back lets the second move, which leaves a copy of itself behind.
    base = poisoned_base()
    driver = Driver(engine_for(base))
    evil = [ask((POISON, *text(39, i))) for i in range(2)]
    driver.submit(*evil)
    driver.step()
    for request in evil:
        assert ended_by(driver, request, EngineFailed).code == "engine.no_token"
    after = [ask(text(30), sampling=VARIED), ask(text(3), sampling=VARIED)]
    driver.run(*after)
    assert [driver.heard[request.id].tokens() for request in after] == each_alone(base, after)


def test_a_prompt_that_breaks_ends_before_its_row_can_move() -> None:
    base = poisoned_base()
    driver = Driver(engine_for(base, prompt_tokens=32))
    long, short = ask(text(30), max_tokens=30, sampling=VARIED), ask(text(2), max_tokens=3)
    driver.submit(long, short)
    driver.step()
    evil = ask((POISON, *text(50)))
    driver.submit(evil)
    driver.step()
    assert ended_by(driver, evil, EngineFailed).code == "engine.no_token"
    while driver.engine.knows(short.id):
        driver.step()
    after = ask(text(3), sampling=VARIED)
    driver.run(after)
    said = [driver.heard[request.id].tokens() for request in (long, after)]
    assert said == each_alone(base, [long, after])


def test_an_answer_that_breaks_on_its_way_out_fails_alone(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foreword.serving.engine.text.stops import StopScanner

    bad, good = ask(text(5, 1), stop=("zzz",)), ask(text(5, 2))
    push = StopScanner.push

    def broken(scanner: StopScanner, piece: str) -> Any:
        if scanner._patterns:
            raise ValueError("a fault in the scanner")
        return push(scanner, piece)

    monkeypatch.setattr(StopScanner, "push", broken)
    driver = Driver(engine_for(base))
    driver.run(bad, good)
    message = str(ended_by(driver, bad, EngineFailed))
    assert "ValueError" in message
    assert "scanner" not in message, "what broke inside is for the log"
    assert len(driver.heard[good.id].tokens()) == 6


# --- reuse of prompts ----------------------------------------------------------------------------


def three_times(driver: Driver, request: GenerateRequest) -> list[int]:
    """Cached tokens and, on the way, that the answers are equal."""
    runs = [driver.run(replace(request, id=f"{request.id}.{i}"))[0] for i in range(3)]
    assert runs[0].tokens() == runs[1].tokens() == runs[2].tokens()
    return [run.usage().cached_tokens for run in runs]


@pytest.mark.parametrize("who", [0, 2, 4])
def test_a_prompt_that_comes_again_is_not_computed_again(
    base: BaseModel, who: int, steps: list[list[Piece]]
) -> None:
    prefix = cast(base)[who]
    driver = Driver(engine_for(base))
    request = ask(text(36), prefix, n=2, max_tokens=5, sampling=VARIED)
    assert three_times(driver, request) == [0, 0, 32]
    tail = replace(request, id="tail", prompt=request.prompt[:32] + text(3, 9))
    del steps[:]
    [heard] = driver.run(tail)
    assert heard.usage().cached_tokens == 32
    assert [len(piece.tokens) for piece in steps[0]] == [3]
    assert heard.tokens() == heard.tokens(1) == each_alone(base, [tail])[0]


def test_nothing_is_reused_across_tenants_or_prefixes(base: BaseModel) -> None:
    driver = Driver(engine_for(base))
    prefixes = cast(base)
    first = ask(text(36), prefixes[0], sampling=VARIED)
    assert three_times(driver, first)[-1] == 32
    others = [
        replace(first, id="tenant", tenant="other"),
        replace(first, id="bare", adapters=BARE),
        replace(first, id="prefix", adapters=AdapterSet(prefixes[1].digest)),
    ]
    for heard in driver.run(*others):
        assert heard.usage().cached_tokens == 0
    assert [driver.heard[r.id].tokens() for r in others] == each_alone(base, others)


def test_what_is_forgotten_is_not_reused(base: BaseModel) -> None:
    driver = Driver(engine_for(base))
    request = ask(text(36), cast(base)[0])
    assert three_times(driver, request)[-1] == 32
    driver.engine.forget(request.adapters, driver.now)
    again = replace(request, id="again")
    driver.run(again)
    ended_by(driver, again, PrefixUnavailable)


# --- prefixes ------------------------------------------------------------------------------------


def test_a_prefix_that_cannot_be_had_is_an_error_and_never_the_bare_model(base: BaseModel) -> None:
    unknown = replace(ask(text(5)), adapters=AdapterSet(Digest.of(b"nobody")))
    driver = Driver(engine_for(base))
    [heard] = driver.run(unknown)
    ended_by(driver, unknown, PrefixUnavailable)
    assert heard.tokens() == []
    with pytest.raises(PrefixUnavailable) as caught:
        Engine(base).submit(unknown, 0.0)
    assert caught.value.code == "prefix.no_store"


def run_loading(driver: Driver) -> None:
    """Real threads load; time goes on as it does."""
    end = time.monotonic() + 20
    while driver.engine.busy:
        time.sleep(0.001)
        driver.step()
        if time.monotonic() > end:
            raise AssertionError("it did not end")


def test_cold_prefixes_are_loaded_beside_what_runs_and_bad_ones_hurt_nobody(
    base: BaseModel,
) -> None:
    good = [artifact(base, number, length=5) for number in range(3)]
    lost, source = artifact(base, 9), Source()
    source.add(*good)
    store = PrefixStore(base, source, Budgets(3 * 5 * base.geometry.values_per_token() * 4))
    driver = Driver(Engine(base, store, EngineSettings(kv_bytes=16 << 20)))
    digests = [made.digest for made in (*good, lost)]
    requests = [
        replace(ask(text(4, i), sampling=VARIED), adapters=AdapterSet(digests[i % 4]))
        for i in range(12)
    ]
    driver.submit(*requests)
    run_loading(driver)
    for i, request in enumerate(requests):
        if i % 4 == 3:
            ended_by(driver, request, PrefixUnavailable)
            continue
        alone = ask(request.prompt, known := held(kv(base, i % 4, 5), f"{i % 4}"), sampling=VARIED)
        assert driver.heard[request.id].tokens() == answers(engine_with(base, known), alone)[0]
    assert sorted(d for d in source.asked if d != lost.digest) == sorted(digests[:3]), "once each"
    assert driver.engine.capacity().prefix_bytes <= driver.engine.capacity().prefix_budget
    driver.engine.close()


def test_a_request_waits_for_its_prefix_no_longer_than_its_deadline(base: BaseModel) -> None:
    made, source = artifact(base, 1), Source(before=lambda _: time.sleep(0.3))
    source.add(made)
    driver = Driver(Engine(base, PrefixStore(base, source, Budgets(1 << 20))))
    request = replace(ask(text(4), deadline=driver.now + 0.05), adapters=AdapterSet(made.digest))
    driver.submit(request)
    run_loading(driver)
    ended_by(driver, request, DeadlineExceeded)
    driver.engine.close()
