"""Proxies on real parts: a base's own probabilities, a sentence encoder, a judge, labels of people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from foreword.artifact import Digest
from foreword.errors import (
    CompatibilityError,
    DataError,
    EngineFailed,
    PromptTooLong,
    UnsupportedModel,
    UsageError,
)
from foreword.evaluation.golden import GoldenSet
from foreword.evaluation.metrics import judge as judging
from foreword.evaluation.metrics.encoder import SentenceEncoder
from foreword.evaluation.metrics.judge import judge, judge_by_likelihood, prompt_for
from foreword.evaluation.metrics.labelled import calibrations, read_labelled
from foreword.evaluation.metrics.neutral import neutral_texts, read_texts
from foreword.evaluation.metrics.perplexity import neutral_perplexity
from foreword.evaluation.metrics.relevancy import answer_relevancy
from foreword.evaluation.metrics.suite import suite
from foreword.evaluation.runs.endpoint import Endpoint
from foreword.evaluation.runs.scoring import likelihoods, losses, text_scorer
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from tests.evaluation.samples import golden, judged, row, write_lines
from tests.evaluation.servers import Reply, said, serving
from tests.prefix.test_attach import random_prefix
from tests.tiny import ids as random_ids
from tests.tiny import tiny_base


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("virtual", [0, 5])
def test_losses_are_those_of_the_model_text_by_text(family: str, virtual: int) -> None:
    """Packed beside others, with a prefix, a text has the loss it has alone."""
    base = tiny_base(family)
    prefix = random_prefix(base, virtual) if virtual else None
    texts = [random_ids(1, n, seed=n)[0].tolist() for n in (2, 9, 23)]
    found = losses(base, [(text[:1], text[1:]) for text in texts], prefix)
    for text, loss in zip(texts, found, strict=True):
        with torch.no_grad(), attach(base, prefix):
            logits = base.model(torch.tensor([text])).logits[0, :-1].log_softmax(-1)
        expected = -sum(float(logits[i, token]) for i, token in enumerate(text[1:]))
        assert loss == pytest.approx(expected, rel=1e-4)


def test_texts_no_model_can_score_are_refused() -> None:
    base = tiny_base()
    with pytest.raises(UsageError, match="two tokens"):
        text_scorer(base)(["a"])
    with pytest.raises(PromptTooLong, match="context of 64"):
        text_scorer(base, random_prefix(base, 5))(["a" * 60])
    with pytest.raises(UnsupportedModel, match="no decoder"):
        text_scorer(tiny_base("t5"))(["a text"])


def test_a_probability_is_of_one_answer_beside_the_other() -> None:
    base = tiny_base()
    tokenizer = base.required_tokenizer()
    prompt = tokenizer("is it\n")["input_ids"]
    (found, _) = likelihoods(base, ("ab", "c"))(["is it", "a longer question"])
    a, b = (
        losses(base, [(prompt, tokenizer(first, add_special_tokens=False)["input_ids"])])[0]
        for first in ("a", "c")
    )
    assert found == pytest.approx(math.exp(-a) / (math.exp(-a) + math.exp(-b)), rel=1e-4)
    assert likelihoods(base, ("c", "ab"))(["is it"])[0] == pytest.approx(1 - found, rel=1e-4)
    with pytest.raises(UsageError, match="same token"):
        likelihoods(base, ("ab", "ac"))


def test_the_neutral_texts_are_paragraphs_and_ones_own_can_be_read(tmp_path: Path) -> None:
    assert len(set(neutral_texts())) == 24
    assert all(150 < len(text) < 500 for text in neutral_texts())
    own = tmp_path / "own.txt"
    own.write_text("Ein Satz\nüber nichts.\r\n\r\n\n Noch einer. \n", encoding="utf-8")
    assert read_texts(own) == ("Ein Satz über nichts.", "Noch einer.")
    for content in (b" \n\n", b"\xff"):
        own.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_texts(own)
        assert caught.value.code == "neutral.texts"
    one = neutral_perplexity(lambda texts: [(1.0, 2)] * len(texts), ["a"]).facts.about
    assert one != neutral_perplexity(lambda texts: [(1.0, 2)] * len(texts), ["b"]).facts.about


@pytest.fixture(scope="module")
def encoder_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT in the layout of sentence-transformers."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("encoders") / "tiny-bert"
    config = tf.BertConfig(
        vocab_size=128, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    tf.BertModel(config).save_pretrained(directory)
    tiny_base().required_tokenizer().save_pretrained(directory)
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    return directory


def test_an_encoder_gives_each_text_the_vector_it_has_alone(encoder_directory: Path) -> None:
    encoder = SentenceEncoder(encoder_directory)
    texts = [f"text {'word ' * (i % 5)}{i}" for i in range(40)] + ["x" * 500, ""]
    vectors = encoder(texts)
    assert vectors.shape == (42, 16)
    assert np.allclose(np.linalg.norm(vectors[:41], axis=1), 1, atol=1e-5)
    for i in (0, 7, 40):
        assert np.allclose(vectors[i], encoder([texts[i]])[0], atol=1e-5)
    metric = answer_relevancy(encoder)
    assert "the encoder tiny-bert" in metric.facts.about
    found = metric.measure(judged((row("a", "same"), "same"), (row("b", "same"), "another one")))
    assert found is not None
    assert found.row_values()[0] == pytest.approx(1)
    assert found.row_values()[1] < 0.999


def test_what_is_no_encoder_of_that_kind_is_refused(
    encoder_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(CompatibilityError, match="cannot be read as an encoder"):
        SentenceEncoder(tmp_path)
    pooling = encoder_directory / "1_Pooling" / "config.json"
    before = pooling.read_text()
    pooling.write_text('{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}')
    with pytest.raises(CompatibilityError, match="does not pool by the mean"):
        SentenceEncoder(encoder_directory)
    pooling.write_text(before)


def test_a_judge_at_an_endpoint_is_held_to_the_schema() -> None:
    """The endpoint gets the schema and the prompts; a verdict goes to the row it was asked for."""
    asked: list[dict[str, Any]] = []

    def reply(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        asked.append(body)
        good = "Paris" in body["messages"][0]["content"]
        return said('{"verdict": "%s"}' % ("pass" if good else "fail"))

    rows = judged((row("a", "Capital?"), "It is Paris."), (row("b", "Capital?"), "It is Rome."))
    with serving(reply) as url:
        endpoint = Endpoint(url, model="judge")
        found = judge(rows, lambda p: endpoint.complete(p, schema=judging.SCHEMA), "judge")
    assert found.measured is not None
    assert found.measured.table.ids == ("a", "b")
    assert found.measured.table.row_values().tolist() == [1, 0]
    assert found.unreadable == ()
    assert asked[0]["response_format"]["json_schema"]["schema"] == judging.SCHEMA
    assert asked[0]["temperature"] == 0


def test_half_a_character_from_an_endpoint_harms_nothing() -> None:
    with serving(lambda *_: said("half \ud800 of it")) as url:
        assert Endpoint(url, model="m").complete(["x"]) == ["half \ufffd of it"]


def test_a_judge_by_likelihood_is_graded() -> None:
    rows = judged((row("a", "q1"), "x"), (row("b", "q2"), "y"))
    seen: list[str] = []

    def likely(prompts: Any) -> list[float]:
        seen.extend(prompts)
        return [0.9, 0.25]

    found = judge_by_likelihood(rows, likely, "m")
    assert found is not None
    assert found.table.row_values().tolist() == [0.9, 0.25]
    assert found.facts.proxy
    assert all("Reply with Yes or No." in prompt for prompt in seen)
    assert "JSON" in prompt_for(rows[0])
    assert judge_by_likelihood([], lambda p: [], "m") is None
    for wrong in ([0.5], [0.5, 1.5], [0.5, math.nan]):
        with pytest.raises(EngineFailed, match="2 probabilities"):
            judge_by_likelihood(rows, lambda p, w=wrong: w, "m")  # type: ignore[misc]


CONTEXT = "The shop in Oslo opens at 9 and closes at 17. Returns are free for 30 days."
LABELS = [
    ("It opens at 9.", True), ("The shop closes at 17.", True), ("Returns are free for 30 days.", True),
    ("It opens at 8.", False), ("Returns cost 5 euros.", False), ("The shop in Bergen opens at 9.", False),
]  # fmt: skip


def opening() -> GoldenSet:
    return golden(row("open", "When is the shop open?", context=CONTEXT), row("other", "Who?"))


def test_proxies_are_calibrated_on_answers_people_labelled(tmp_path: Path) -> None:
    """Several answers to one row, from whichever variant; only proxies are calibrated."""
    lines = [{"row": "open", "answer": answer, "good": good} for answer, good in LABELS]
    labelled = read_labelled(write_lines(tmp_path / "labels.jsonl", *lines), opening())
    found = {each.metric: each for each in calibrations(labelled, suite())}
    assert set(found) == {"groundedness", "answer_relevancy_4grams"}
    assert found["groundedness"].agreement == 1.0
    assert found["groundedness"].n == 6
    assert found["groundedness"].labels != Digest.of(b"")
    measured = judge_by_likelihood(labelled.judged, lambda p: [0.5] * len(p), "m")
    assert measured is not None
    (blind,) = calibrations(labelled, (), [measured])
    assert (blind.agreement, blind.kappa) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"row": "none", "answer": "x", "good": True}, "has no row 'none'"),
        ({"row": "open", "answer": "x", "good": 1}, "good"),
        ({"row": "open", "good": True}, "answer"),
        ({"row": "open", "answer": "x", "good": True, "by": "me"}, "'by' is not known"),
        ('{"row": "open", "answer": "\\ud800", "good": true}', "surrogates"),
        ("{", "not readable as JSON"),
    ],
)
def test_labels_that_cannot_be_used_are_named(line: Any, reason: str, tmp_path: Path) -> None:
    good = {"row": "open", "answer": "x", "good": True}
    path = write_lines(tmp_path / "labels.jsonl", good, line)
    with pytest.raises(DataError) as caught:
        read_labelled(path, opening())
    assert f"{path}:2: " in str(caught.value)
    assert reason in str(caught.value)
    path.write_text("")
    with pytest.raises(DataError, match="has no lines"):
        read_labelled(path, opening())


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_base(demo_base())


@pytest.mark.real
def test_perplexity_on_neutral_text_shows_what_a_prefix_broke(base: BaseModel) -> None:
    texts = neutral_texts()[:4]
    bare = neutral_perplexity(text_scorer(base), texts).table
    broken = neutral_perplexity(text_scorer(base, random_prefix(base, 8)), texts).table
    assert 10 < bare.value < 100
    assert broken.value > 2 * bare.value
    assert (broken.row_values() > bare.row_values()).all()


@pytest.mark.real
def test_the_frozen_base_prefers_the_likelier_of_two_answers(base: BaseModel) -> None:
    asked = likelihoods(base, ("Paris", "Banana"))
    assert asked(["Which city is the capital of France? Reply with one word."])[0] > 0.9
