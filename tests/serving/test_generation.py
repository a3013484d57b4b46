"""Lists of inputs, each with its own prefix or none: the answers, their order, and refusals."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from foreword.artifact import Digest, PromptFormat
from foreword.errors import PromptTooLong, ServingError, UnsupportedModel
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import LayerKV, PrefixKV
from foreword.prefix.loading import LoadedPrefix
from foreword.serving import generation, seq2seq
from foreword.serving.generation import Completion, GenerationRequest, generate
from tests.serving.asking import greedy
from tests.tiny import ENCODER_DECODERS, tiny_base

WORDS = ("hello", "a", "what is this", "zebra!", "no", "how do you do", "12 + 30 =", "x y z")
FAMILIES = ("llama", "gemma2", *ENCODER_DECODERS)


@cache
def base_of(family: str) -> BaseModel:
    """The family's tiny base, which never says `</s>` by chance."""
    base = tiny_base(family)
    head = base.model.get_output_embeddings()
    head.weight.data[2] = 0.0
    return base


@cache
def prefix_of(family: str, number: int) -> LoadedPrefix:
    """Random numbers at every site the family has."""
    generator, length = torch.Generator().manual_seed(number), 2 + 3 * number
    sites = {
        site: {
            i: LayerKV(torch.randn(g.kv_heads, length, g.key_dim, generator=generator),
                       torch.randn(g.kv_heads, length, g.value_dim, generator=generator))
            for i, g in layers.items()
        }
        for site, layers in base_of(family).geometry.sites.items()
    }  # fmt: skip
    digest = Digest.of(f"{family} {number}".encode())
    prompt = PromptFormat("template", "Q: {input} A:")
    return LoadedPrefix(f"p{number}", "1.0.0", digest, PrefixKV(length, sites), prompt)


def mixed(family: str, count: int = 8) -> list[GenerationRequest]:
    prefixes = [prefix_of(family, 0), None, prefix_of(family, 1), prefix_of(family, 2)]
    return [GenerationRequest({"input": WORDS[i % 8]}, prefixes[i % 4]) for i in range(count)]


def said(base: BaseModel, requests: list[GenerationRequest], **options: float) -> list[Completion]:
    return generate(base, requests, **{"max_new_tokens": 8, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_together_are_those_of_one_at_a_time_in_their_order(family: str) -> None:
    base, requests = base_of(family), mixed(family)
    together = said(base, requests)
    assert together == [said(base, [request])[0] for request in requests]
    assert said(base, requests[::-1]) == together[::-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_says_which_prefix_gave_it(family: str) -> None:
    for request, answer in zip(mixed(family), said(base_of(family), mixed(family)), strict=True):
        prefix = request.prefix
        assert answer.digest == (prefix.digest if prefix else None)
        assert answer.prefix == (f"{prefix.name}@{prefix.version}" if prefix else None)


@pytest.mark.parametrize("family", ["llama", *ENCODER_DECODERS])
def test_the_prefix_changes_the_answer(family: str) -> None:
    plain = PromptFormat("template", "{input}")
    whose = [prefix_of(family, n) for n in range(3)]
    requests = [GenerationRequest({"input": "abcdef"}, who, plain) for who in (*whose, None)]
    # One at a time: in a list each draws other numbers.
    answers = [said(base_of(family), [request], temperature=1.0)[0] for request in requests]
    assert len({answer.token_ids for answer in answers}) == 4


def test_a_decoders_answer_is_the_models_own_and_the_text_is_its_tokens() -> None:
    base, prefix = base_of("llama"), prefix_of("llama", 1)
    [answer] = said(base, [GenerationRequest({"input": "hello"}, prefix)])
    tokenizer = base.required_tokenizer()
    prompt = tokenizer("Q: hello A:").input_ids
    assert list(answer.token_ids) == greedy(base, prefix.kv, prompt, 8)
    assert answer.text == tokenizer.decode(answer.token_ids).strip()


def test_a_prompt_given_with_the_request_goes_before_the_prefixs_own() -> None:
    prefix, own = prefix_of("llama", 1), PromptFormat("template", "{input}?")
    assert GenerationRequest({"input": "a"}, prefix).format == prefix.prompt
    assert GenerationRequest({"input": "a"}, prefix, own).format == own
    base = base_of("llama")
    [answer] = said(base, [GenerationRequest({"input": "hello"}, prefix, own)])
    prompt = base.required_tokenizer()("hello?").input_ids
    assert list(answer.token_ids) == greedy(base, prefix.kv, prompt, 8)


def test_a_drawn_answer_depends_on_seed_and_place_and_on_no_other_request() -> None:
    base, requests = base_of("llama"), mixed("llama")
    drawn = said(base, requests, temperature=1.0, seed=5)
    assert said(base, requests[:3], temperature=1.0, seed=5) == drawn[:3]
    others = [requests[1], requests[0], *requests[2:]]
    assert said(base, others, temperature=1.0, seed=5)[2:] == drawn[2:]
    assert said(base, requests, temperature=1.0, seed=6) != drawn
    same = said(base, [requests[0]] * 4, temperature=1.0, seed=5)
    assert len({answer.token_ids for answer in same}) == 4, "equal inputs, each with its own draw"


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_an_encoder_decoder_draws_the_same_again_from_the_same_seed(family: str) -> None:
    base, requests = base_of(family), mixed(family)
    drawn = said(base, requests, temperature=1.0, seed=5)
    assert said(base, requests, temperature=1.0, seed=5) == drawn
    assert said(base, requests, temperature=1.0, seed=6) != drawn


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_progress_counts_up_to_all(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_AT_ONCE", 4)
    monkeypatch.setattr(seq2seq, "BATCH_ROWS", 4)
    told: list[int] = []
    generate(base_of(family), mixed(family, 10), max_new_tokens=2, progress=told.append)
    assert told == [4, 8, 10]


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_asked_is_nothing_answered(family: str) -> None:
    assert said(base_of(family), []) == []


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_an_input_that_does_not_fit_is_named(family: str) -> None:
    requests = [*mixed(family, 2), GenerationRequest({"input": "x" * 60}, prefix_of(family, 2))]
    with pytest.raises(PromptTooLong, match=r"input 3: .* 8 virtual tokens and 8 new"):
        said(base_of(family), requests)


def test_an_encoder_writes_no_text() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        said(tiny_base("bert"), [GenerationRequest({"input": "a"})])
    assert caught.value.code == "model.encoder_only"


def test_an_answer_that_breaks_is_an_error_and_not_another_answer() -> None:
    base = tiny_base("llama")
    base.model.model.embed_tokens.weight[ord("!") - 32 + 5] = float("nan")
    with pytest.raises(ServingError) as caught:
        said(base, mixed("llama", 4))
    assert caught.value.code == "engine.no_token"
