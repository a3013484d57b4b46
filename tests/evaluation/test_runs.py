"""Runs: every variant answers every row once, a stopped run goes on, and no answer has another prefix."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.artifact import Digest, PromptFormat
from foreword.errors import EngineFailed, PrefixUnavailable, StorageError, UsageError
from foreword.evaluation.golden import Message
from foreword.evaluation.runs.answers import Answer
from foreword.evaluation.runs.ask import Ask, Finished
from foreword.evaluation.runs.decoding import Decoding
from foreword.evaluation.runs.embedded import embedded, engine_name
from foreword.evaluation.runs.endpoint import Endpoint
from foreword.evaluation.runs.replay import key_of, replay
from foreword.evaluation.runs.store import AnswerStore
from foreword.evaluation.runs.variant import Variant
from foreword.prefix.loading import LoadedPrefix
from foreword.serving.generation import GenerationRequest, generate
from tests.evaluation.samples import golden, row
from tests.evaluation.servers import Reply, said, serving
from tests.prefix.test_attach import random_prefix
from tests.tiny import tiny_base

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
BARE = Variant("base", None, "engine", "fingerprint")
FIRST = Variant("incumbent", ONE, "engine", "fingerprint")
SECOND = Variant("candidate", TWO, "engine", "fingerprint")
SET = golden(*(row(f"r{i}", f"question {i}") for i in range(5)))
GREEDY = Decoding(max_new_tokens=4)


class Scripted:
    """Answers with the row and the variant; stops after so many if it is told to."""

    def __init__(self, most: int = 1_000) -> None:
        self.calls: list[list[Ask]] = []
        self.most = most

    def __call__(self, asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        self.calls.append(list(asks))
        for place, ask in reversed(list(enumerate(asks))):
            if self.most == 0:
                raise KeyboardInterrupt
            self.most -= 1
            text = f"{ask.row.id} by {ask.variant.digest}"
            finished(place, Answer(text, ask.variant.digest, 3, 0.25))


def test_all_rows_of_all_variants_go_in_one_call_and_mixed() -> None:
    scripted, seen = Scripted(), list[tuple[int, int]]()
    found = replay([BARE, FIRST, SECOND], SET, scripted, GREEDY, progress=lambda *p: seen.append(p))
    (asks,) = scripted.calls
    assert len(asks) == 15
    assert [a.variant.name for a in asks[:3]] == ["base", "incumbent", "candidate"]
    assert seen == [(n, 15) for n in range(1, 16)]
    assert found.answers["candidate"]["r3"].text == f"r3 by {TWO}"
    assert all(set(answers) == {r.id for r in SET.rows} for answers in found.answers.values())


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store, pytest.raises(KeyboardInterrupt):
        replay([BARE, FIRST], SET, Scripted(most=7), GREEDY, store=store)
    rest = Scripted()
    with AnswerStore(tmp_path) as store:
        found = replay([BARE, FIRST], SET, rest, GREEDY, store=store)
    assert len(rest.calls[0]) == found.asked == 3
    whole = replay([BARE, FIRST], SET, Scripted(), GREEDY)
    assert found.answers == whole.answers
    again = Scripted()
    with AnswerStore(tmp_path) as store:
        assert replay([BARE, FIRST], SET, again, GREEDY, store=store).answers == whole.answers
    assert again.calls == []


CHANGES: dict[str, dict[str, Any]] = {
    "prefix": {"variant": replace(FIRST, digest=TWO)},
    "base": {"variant": replace(FIRST, base="another")},
    "route": {"variant": replace(FIRST, route="acme/support")},
    "prompt": {"variant": replace(FIRST, prompt=PromptFormat("template", "Q: {input}"))},
    "set": {"set_digest": Digest.of(b"another set")},
    "tokens": {"decoding": Decoding(max_new_tokens=5)},
    "temperature": {"decoding": replace(GREEDY, temperature=0.5)},
    "seed": {"decoding": replace(GREEDY, seed=1)},
    "engine": {"engine": "another"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_answer_is_reused_for_exactly_its_own_key(change: str, tmp_path: Path) -> None:
    same: dict[str, Any] = {
        "variant": FIRST, "set_digest": SET.digest, "decoding": GREEDY, "engine": "e",
    }  # fmt: skip
    with AnswerStore(tmp_path) as store:
        store.add(key_of(**same), "r1", Answer("kept", ONE))
        assert store.answers(key_of(**same)) == {"r1": Answer("kept", ONE)}
        assert store.answers(key_of(**{**same, **CHANGES[change]})) == {}
        renamed = {**same, "variant": replace(FIRST, name="candidate")}
        assert store.answers(key_of(**renamed)) != {}


@given(st.integers(0, 400), st.text(max_size=30))
def test_a_torn_file_loses_the_torn_answers_only(cut: int, text: str) -> None:
    import tempfile

    key = key_of(FIRST, SET.digest, GREEDY, "")
    with tempfile.TemporaryDirectory() as place:
        with AnswerStore(Path(place)) as store:
            for i in range(3):
                store.add(key, f"r{i}", Answer(text, ONE, i, i / 8))
        (path,) = Path(place).iterdir()
        data = path.read_bytes()
        header = data.index(b"\n") + 1
        path.write_bytes(data[: max(header, len(data) - cut)])
        with AnswerStore(Path(place)) as store:
            left = store.answers(key)
            assert left == {f"r{i}": Answer(text, ONE, i, i / 8) for i in range(len(left))}
            store.add(key, "new", Answer("new", ONE))
            assert store.answers(key) == {**left, "new": Answer("new", ONE)}


@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_first_line_that_was_torn_is_written_again(kept: int, tmp_path: Path) -> None:
    key = key_of(FIRST, SET.digest, GREEDY, "")
    with AnswerStore(tmp_path) as store:
        store.add(key, "r1", Answer("lost", ONE))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    with AnswerStore(tmp_path) as store:
        assert store.answers(key) == {}
        store.add(key, "r2", Answer("x", ONE))
        assert store.answers(key) == {"r2": Answer("x", ONE)}


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    key = key_of(FIRST, SET.digest, GREEDY, "")
    with AnswerStore(tmp_path) as store:
        store.add(key, "r1", Answer("x", ONE))
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes().replace(b"fingerprint", b"fingerprinT"))
        with pytest.raises(StorageError, match="not about the run"):
            store.answers(key)


def test_rows_of_the_store_that_the_set_does_not_have_do_not_count(tmp_path: Path) -> None:
    key = key_of(FIRST, SET.digest, GREEDY, "")
    with AnswerStore(tmp_path) as store:
        store.add(key, "stranger", Answer("x", ONE))
        found = replay([FIRST], SET, Scripted(), GREEDY, store=store)
    assert "stranger" not in found.answers["incumbent"]


def test_equal_variants_are_asked_once() -> None:
    scripted = Scripted()
    found = replay([FIRST, replace(FIRST, name="candidate")], SET, scripted, GREEDY)
    assert len(scripted.calls[0]) == 5
    assert found.answers["candidate"] == found.answers["incumbent"]


def test_an_answer_with_another_prefix_ends_the_run_and_is_not_kept(tmp_path: Path) -> None:
    def wrong(asks: Sequence[Ask], decoding: Decoding, finished: Finished) -> None:
        finished(0, Answer("x", TWO))

    with AnswerStore(tmp_path) as store:
        with pytest.raises(EngineFailed, match="attached instead of") as caught:
            replay([FIRST], SET, wrong, GREEDY, store=store)
        assert caught.value.code == "evaluation.wrong_prefix"
        assert store.answers(key_of(FIRST, SET.digest, GREEDY, "")) == {}


def test_a_missing_answer_and_names_that_clash_are_refused() -> None:
    with pytest.raises(EngineFailed, match="5 of 5 answers did not come"):
        replay([FIRST], SET, lambda *_: None, GREEDY)
    with pytest.raises(UsageError, match="different names"):
        replay([FIRST, replace(SECOND, name="incumbent")], SET, Scripted(), GREEDY)
    with pytest.raises(UsageError, match="none"):
        replay([], SET, Scripted(), GREEDY)
    with pytest.raises(UsageError, match="temperature"):
        Decoding(temperature=-1)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_engine_answers_each_variant_as_it_would_alone(family: str, tmp_path: Path) -> None:
    base = tiny_base(family)
    prompt = PromptFormat("template", "{input}\n")
    prefixes = {
        digest: LoadedPrefix(f"p{seed}", "1.0.0", digest, random_prefix(base, 3, seed), prompt)
        for seed, digest in enumerate((ONE, TWO), 1)
    }
    bare = replace(BARE, prompt=prompt)
    with AnswerStore(tmp_path) as store:
        found = replay([bare, FIRST, SECOND], SET, embedded(base, prefixes), GREEDY,
                       engine=engine_name(), store=store)  # fmt: skip
    for variant in found.variants:
        prefix = prefixes[variant.digest] if variant.digest else None
        alone = generate(base, [GenerationRequest(r.columns, prefix, prompt) for r in SET.rows],
                         max_new_tokens=4)  # fmt: skip
        answers = found.answers[variant.name]
        assert [answers[r.id].text for r in SET.rows] == [a.text for a in alone]
        assert {a.digest for a in answers.values()} == {variant.digest}
    assert found.answers["base"] != found.answers["candidate"]
    timed = [a.seconds for a in found.answers["base"].values()]
    assert (
        all(s is not None and s > 0 for s in timed) if family == "llama" else set(timed) == {None}
    )


def test_the_engine_refuses_what_it_cannot_put() -> None:
    base = tiny_base()
    talk = row("t", columns={}, messages=(Message("system", "s"), Message("user", "u")))
    with pytest.raises(UsageError, match="through an endpoint"):
        replay([BARE], golden(talk), embedded(base, {}), GREEDY)
    with pytest.raises(PrefixUnavailable, match="was not loaded"):
        replay([FIRST], SET, embedded(base, {}), GREEDY)


def test_an_endpoint_is_asked_by_a_bounded_number_of_threads() -> None:
    running, most, lock = 0, 0, threading.Lock()
    asked: list[tuple[dict[str, Any], dict[str, str]]] = []

    def reply(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            asked.append((body, headers))
        time.sleep(0.02)
        with lock:
            running -= 1
        return said(f" to {body['messages'][-1]['content']} ", str(ONE))

    columns = row("c", columns={"input": "x", "tone": "kind"})
    talk = row("t", columns={}, messages=(Message("system", "s"), Message("user", "u")))
    with serving(reply) as url:
        endpoint = Endpoint(url, "secret", at_once=3)
        live = Variant("live", ONE, "acme/support", "fingerprint")
        whole = golden(*SET.rows, columns, talk)
        found = replay([live], whole, endpoint.generate, replace(GREEDY, seed=7))
    assert most == 3
    assert found.answers["live"]["r1"].text == "to question 1"
    assert found.answers["live"]["r1"].tokens == 3
    assert (found.answers["live"]["r1"].seconds or 0) >= 0.02
    bodies = {b["messages"][-1]["content"]: b for b, _ in asked}
    assert bodies["question 1"] == {
        "model": "acme/support", "messages": [{"role": "user", "content": "question 1"}],
        "max_tokens": 4, "temperature": 0.0, "seed": 7,
    }  # fmt: skip
    assert bodies["input: x\ntone: kind"]["foreword"] == {"inputs": {"input": "x", "tone": "kind"}}
    assert bodies["u"]["messages"][0] == {"role": "system", "content": "s"}
    assert {h["Authorization"] for _, h in asked} == {"Bearer secret"}
    assert {h["path"] for _, h in asked} == {"/v1/chat/completions"}
    assert "secret" not in repr(endpoint)


def test_a_busy_endpoint_is_asked_again_when_it_says() -> None:
    times: list[float] = []

    def reply(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        times.append(time.monotonic())
        return said("ok") if len(times) == 3 else (429, {"Retry-After": "0.1"}, "busy")

    with serving(reply) as url:
        found = Endpoint(url, model="m").complete(["hello"])
    assert found == ["ok"]
    assert all(later - before >= 0.1 for before, later in itertools.pairwise(times))


BAD_REPLIES: dict[str, Reply] = {
    "an error": (500, {}, "\x1b[31mboom"),
    "always busy": (503, {"Retry-After": "0"}, ""),
    "no JSON": (200, {}, "hello"),
    "no choices": (200, {}, {"choices": []}),
    "a list": (200, {}, []),
    "no text": said(None),
    "no digest": (200, {"X-Foreword-Digest": "sha256:zz"}, said("x")[2]),
    "another prefix": said("x", str(TWO)),
    "no prefix": said("x", "base"),
}


@pytest.mark.parametrize("bad", BAD_REPLIES)
def test_an_endpoint_that_fails_ends_the_run(bad: str, tmp_path: Path) -> None:
    live = Variant("live", ONE, "acme/support", "fingerprint")
    with serving(lambda *_: BAD_REPLIES[bad]) as url, AnswerStore(tmp_path) as store:
        with pytest.raises(EngineFailed) as caught:
            replay([live], SET, Endpoint(url, attempts=2).generate, GREEDY, store=store)
        assert store.answers(key_of(live, SET.digest, GREEDY, "")) == {}
    assert caught.value.code in ("evaluation.endpoint", "evaluation.wrong_prefix")
    assert "\x1b" not in str(caught.value)


def test_an_endpoint_that_is_not_there_is_an_error_and_so_is_no_model() -> None:
    with pytest.raises(EngineFailed, match="did not answer"):
        Endpoint("http://127.0.0.1:9/v1", model="m").complete(["x"])
    with pytest.raises(UsageError, match="name the model"):
        Endpoint("http://127.0.0.1:9/v1").complete(["x"])


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path) -> None:
    def reply(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        failing = body["messages"][0]["content"] == "question 3"
        return (400, {}, "no") if failing else said("ok", str(ONE))

    live = Variant("live", ONE, "acme/support", "fingerprint")
    with serving(reply) as url, AnswerStore(tmp_path) as store:
        with pytest.raises(EngineFailed, match="status 400"):
            replay([live], SET, Endpoint(url, at_once=1).generate, GREEDY, store=store)
        kept = store.answers(key_of(live, SET.digest, GREEDY, ""))
    assert 0 < len(kept) < 5
    assert "r3" not in kept
    json.dumps([a.text for a in kept.values()])
