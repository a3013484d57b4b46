"""Answers held to a schema or an expression, and grammars that are meant to hurt."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from functools import lru_cache

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from foreword.errors import CompatibilityError, UsageError
from foreword.prefix.bases import demo_base
from foreword.serving.contract import Constraint
from foreword.serving.engine.choice import constrain, lexicon, trial
from foreword.serving.engine.choice.constrain import Grammars, Matcher
from tests.tiny import tokenizer

END = 2
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


@lru_cache
def grammars() -> Grammars:
    return Grammars(tokenizer(), 128, [END])


def ids(text: str) -> list[int]:
    found = tokenizer().convert_tokens_to_ids(list(text))
    assert isinstance(found, list)
    return found


def follow(matcher: Matcher, text: str) -> bool:
    """True if the text may come next, as far as it goes."""
    for token in ids(text):
        if not matcher.mask()[token]:
            return False
        matcher.accept(token)
    return True


def regex(text: str) -> Matcher:
    return grammars().compile(Constraint("regex", text)).matcher()


def schema(text: str) -> Matcher:
    return grammars().compile(Constraint("json_schema", text)).matcher()


def walk(
    matcher: Matcher, tokenizer: PreTrainedTokenizerBase, rng: random.Random, ends: set[int]
) -> str:
    """A random answer of the language."""
    out: list[int] = []
    for _ in range(400):
        if matcher.finished:
            break
        token = rng.choice(np.flatnonzero(matcher.mask()).tolist())
        matcher.accept(token)
        if token in ends:
            break
        out.append(token)
    else:
        pytest.fail("no end in 400 tokens")
    text = tokenizer.decode(out)
    assert isinstance(text, str)
    return text


def test_an_end_is_allowed_only_where_the_answer_may_end() -> None:
    matcher = regex("ab?")
    assert np.flatnonzero(matcher.mask()).tolist() == ids("a")
    matcher.accept(*ids("a"))
    assert set(np.flatnonzero(matcher.mask()).tolist()) == {END, *ids("b")}
    assert not matcher.finished
    matcher.accept(*ids("b"))
    assert matcher.finished
    assert np.flatnonzero(matcher.mask()).tolist() == [END]


def test_random_answers_match_the_expression() -> None:
    pattern, rng = r"(cat|dog)s?( [0-9]{1,3}|!)*\.", random.Random(0)
    for _ in range(20):
        assert re.fullmatch(pattern, walk(regex(pattern), tokenizer(), rng, {END}))


def test_random_answers_are_json_of_the_schema() -> None:
    compact = json.dumps(json.loads(PERSON) | {"properties": {
        "name": {"enum": ["ann", "bob \"x\""]}, "age": {"type": "integer", "minimum": 0, "maximum": 9},
    }})  # fmt: skip
    for seed in range(20):
        value = json.loads(walk(schema(compact), tokenizer(), random.Random(seed), {END}))
        assert set(value) == {"name", "age"}
        assert value["name"] in ("ann", 'bob "x"')
        assert 0 <= value["age"] <= 9


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"name":"ann","age":3}', True),
        ('{ "name": "ann",\n  "age": 3 }', True),
        ('{"name":"annabel"', False),
        ('{"name":"ann","age":"', False),
        ('{"other"', False),
        ("[", False),
        ('{"name":' + " " * 16 + '"ann"', True),
        ('{"name":' + " " * 17, False),
    ],
)
def test_json(text: str, fits: bool) -> None:
    assert follow(schema(PERSON), text) is fits


def test_answers_of_one_request_do_not_share_a_place() -> None:
    grammar = grammars().compile(Constraint("regex", "ab|cd"))
    one, two = grammar.matcher(), grammar.matcher()
    assert follow(one, "a")
    assert follow(two, "cd")
    assert follow(one, "b")
    assert grammar.matcher().mask()[ids("c")].all()


def test_a_forced_text_longer_than_one_look_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "_AHEAD", 3)
    matcher = (
        Grammars(tokenizer(), 128, [END]).compile(Constraint("regex", "hello world[12]")).matcher()
    )
    assert follow(matcher, "hello world2")
    assert matcher.finished


def test_only_the_beginning_of_a_forced_text_is_tokenized() -> None:
    """llguidance asks at every token; all of 100 KB would take a good part of a second."""
    asked = lexicon.Lexicon(tokenizer(), 128, [END])
    assert asked(b"a" * 100_000) == ids("a") * 1024
    assert asked("aé".encode()) == ids("a")
    assert asked("é".encode()) == []


def test_a_character_without_a_token_is_refused_where_it_is_needed() -> None:
    with pytest.raises(UsageError, match="no token of this model can go on") as refused:
        regex("é")
    assert refused.value.code == "request.constraint"
    matcher = regex("[ab]é")
    assert follow(matcher, "a")
    with pytest.raises(UsageError, match="no token of this model can go on"):
        matcher.mask()


def test_a_token_outside_the_grammar_is_an_error_for_this_answer_only() -> None:
    matcher = regex("ab")
    with pytest.raises(UsageError) as refused:
        matcher.accept(*ids("x"))
    assert refused.value.code == "request.constraint"
    with pytest.raises(UsageError):
        matcher.mask()
    assert follow(regex("ab"), "ab")


def test_a_compiled_grammar_is_kept_and_a_refusal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(
        constrain, "objection", lambda text: tried.append(text) or trial.objection(text)
    )
    monkeypatch.setattr(constrain, "KEPT_GRAMMARS", 2)
    mine = Grammars(tokenizer(), 128, [END])
    one = mine.compile(Constraint("regex", "x"))
    assert mine.compile(Constraint("regex", "x")) is one
    for _ in range(3):
        with pytest.raises(UsageError):
            mine.compile(Constraint("regex", "(x"))
    assert len(tried) == 2
    mine.compile(Constraint("json_schema", "{}"))
    assert mine.compile(Constraint("regex", "x")) is not one  # the oldest went
    assert len(tried) == 4


def test_what_a_tenant_compiled_is_kept_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrain, "KEPT_GRAMMARS", 4)
    mine, x = Grammars(tokenizer(), 128, [END]), Constraint("regex", "x")
    acmes = mine.compile(x, "acme")
    assert mine.compile(x, "globex") is not acmes
    for text in "abcdef":  # drives out its own, not another tenant's
        mine.compile(Constraint("regex", text), "globex")
    assert mine.compile(x, "acme") is acmes
    mine.drop_tenant("acme")
    assert mine.compile(x, "acme") is not acmes


REFUSED = {
    "broken regex": Constraint("regex", "(a"),
    "look-ahead": Constraint("regex", "a(?=b)"),
    "back-reference": Constraint("regex", r"(a)\1"),
    "not JSON": Constraint("json_schema", "{"),
    "not a schema": Constraint("json_schema", "[]"),
    "unknown type": Constraint("json_schema", '{"type":"x"}'),
    "nothing fits": Constraint("json_schema", "false"),
    "reference to nothing": Constraint("json_schema", '{"$ref":"#/x"}'),
    "reference to the network": Constraint("json_schema", '{"$ref":"http://x.invalid/y"}'),
    "reference to itself": Constraint("json_schema", '{"$ref":"#"}'),
    "half a character": Constraint("regex", "\ud800"),
    "a megabyte": Constraint("json_schema", json.dumps({"enum": ["x" * 10**6]})),
    "deep JSON": Constraint("json_schema", '{"items":' * 6000 + "{}" + "}" * 6000),
    "deep regex": Constraint("regex", "(" * 30_000 + ")" * 30_000),
    "control characters": Constraint("json_schema", '{"type":"\x1b[2J"}'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="the constraint cannot be followed") as refused:
        grammars().compile(REFUSED[name])
    assert refused.value.code == "request.constraint"
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


def test_a_schema_that_computes_forever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """llguidance's own limits do not stop this one: many patterns of one text."""
    monkeypatch.setattr(trial, "TRIAL_SECONDS", 1.0)
    patterns = [{"type": "string", "pattern": f"^.*a.{{{i}}}$"} for i in range(30)]
    started = time.monotonic()
    with pytest.raises(UsageError, match="not compiled within 1 seconds"):
        grammars().compile(Constraint("json_schema", json.dumps({"allOf": patterns})))
    assert time.monotonic() - started < 10


NASTY = {
    "nested quantifiers": Constraint("regex", "((a+)+)+b"),
    "repeated repetition": Constraint("regex", "((a{1,100}){1,100}){1,100}"),
    "long repetition": Constraint("regex", "a{100000}"),
    "far look-back": Constraint("regex", "(.*a.{200}b.{200})"),
    "many branches": Constraint("regex", "|".join("a" * i + "b" for i in range(300))),
    "many properties": Constraint("json_schema", json.dumps(
        {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(1500)}})),
    "tree of references": Constraint("json_schema", json.dumps({"$ref": "#/$defs/d0", "$defs": {
        f"d{i}": {"type": "array", "items": False, "minItems": 2,
                  "prefixItems": [{"$ref": f"#/$defs/d{min(i + 1, 40)}"}] * 2} for i in range(41)}})),
    "long array": Constraint("json_schema", '{"type":"array","minItems":100000}'),
}  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_no_step_of_a_nasty_grammar_holds_up_the_engine(name: str) -> None:
    """Each is refused, by llguidance's limits, or goes on in milliseconds per token."""
    steps: list[float] = []
    # Only a refusal is caught: that is llguidance's limit being reached, and as good.
    with contextlib.suppress(UsageError):
        wander(grammars().compile(NASTY[name]).matcher(), steps)
    assert max(steps, default=0.0) < 0.25


def wander(matcher: Matcher, steps: list[float]) -> None:
    rng = random.Random(0)
    for _ in range(40):
        started = time.thread_time()
        mask = matcher.mask()
        steps.append(time.thread_time() - started)
        allowed = [i for i in np.flatnonzero(mask).tolist() if i != END]
        if not allowed:
            return
        matcher.accept(rng.choice(allowed))


def metaspace() -> PreTrainedTokenizerFast:
    pieces = ["<unk>", "▁", "▁the", "ing", "a", "b", "▁b", "</s>"]
    inner = Tokenizer(models.Unigram([(p, -1.0) for p in pieces], 0))
    inner.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_whose_spaces_are_marks() -> None:
    made = metaspace()
    end = made.convert_tokens_to_ids("</s>")
    matcher = Grammars(made, 16, [end]).compile(Constraint("regex", "aing the b")).matcher()
    assert walk(matcher, made, random.Random(0), {end}) == "aing the b"


def test_bases_that_cannot_be_constrained() -> None:
    class Slow(PreTrainedTokenizer):
        vocab_size = 0

        def get_vocab(self) -> dict[str, int]:
            return {}

    with pytest.raises(CompatibilityError) as refused:
        Grammars(Slow(), 128, [END]).compile(Constraint("regex", "a"))
    assert refused.value.code == "base.slow_tokenizer"
    with pytest.raises(CompatibilityError) as refused:
        Grammars(tokenizer(), 128, []).compile(Constraint("regex", "a"))
    assert refused.value.code == "base.no_end_token"


@pytest.mark.real
def test_smollm2_answers_match_and_any_of_its_ends_ends() -> None:
    made, rng = AutoTokenizer.from_pretrained(demo_base()), random.Random(1)
    mine = Grammars(made, 49152, [2, 0])
    pattern = r"Order A-[0-9]{4} is (späte|on time)[.!] 😀?"
    for _ in range(10):
        matcher = mine.compile(Constraint("regex", pattern)).matcher()
        assert re.fullmatch(pattern, walk(matcher, made, rng, {2, 0}))
    matcher = mine.compile(Constraint("regex", "a*")).matcher()
    assert matcher.mask()[[0, 2]].all()
    value = json.loads(
        walk(mine.compile(Constraint("json_schema", PERSON)).matcher(), made, rng, {2, 0})
    )
    assert len(value["name"]) <= 5
