"""SmolLM2-135M, the model a first user meets: parity with PEFT, a short run, a mixed batch."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from foreword.artifact import Site, open_artifact
from foreword.artifact.peft import write_peft
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import demo_base
from foreword.prefix.loading import load_prefix
from foreword.prefix.selfcheck import check_attachment
from foreword.serving.generation import GenerationRequest, generate
from foreword.tuning.data import load_dataset
from foreword.tuning.recipe import DataSettings, Recipe, TrainSettings
from foreword.tuning.train import TrainedPrefix, train

pytestmark = pytest.mark.real
TICKETS = Path(__file__).parents[1] / "examples" / "tickets"


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return load_base(demo_base())


@pytest.fixture(scope="module")
def made(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> TrainedPrefix:
    out = tmp_path_factory.mktemp("real") / "tickets"
    dataset = load_dataset(TICKETS / "train.jsonl", DataSettings(limit=120), seed=0)
    return train(Recipe(name="tickets", train=TrainSettings(steps=20)), base, dataset, out)


def test_attaching_is_exact(base: BaseModel) -> None:
    assert check_attachment(base).error < 1e-5
    assert {s: len(layers) for s, layers in base.geometry.sites.items()} == {Site.DECODER: 30}


def test_a_short_run_learns_the_form_of_the_answer(base: BaseModel, made: TrainedPrefix) -> None:
    assert made.outcome.held_out < made.outcome.frozen / 3
    prefix = load_prefix(base, open_artifact(made.directory))
    inputs = [json.loads(line)["input"] for line in (TICKETS / "heldout.jsonl").open()][:6]
    requests = [GenerationRequest({"input": i}, who) for i in inputs for who in (prefix, None)]
    mixed = generate(base, requests, max_new_tokens=40)
    with_prefix, bare = mixed[::2], mixed[1::2]
    assert sum(answer.text.startswith('{"intent"') for answer in with_prefix) >= 5
    assert not any(answer.text.startswith("{") for answer in bare)
    alone = [generate(base, [request], max_new_tokens=40)[0] for request in requests[:4]]
    assert [a.token_ids for a in alone] == [a.token_ids for a in mixed[:4]]


def test_peft_says_the_same_with_what_we_export(
    base: BaseModel, made: TrainedPrefix, tmp_path: Path
) -> None:
    write_peft(made.artifact, tmp_path / "adapter")
    model = AutoModelForCausalLM.from_pretrained(demo_base(), dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    tokens = torch.tensor([base.required_tokenizer()("my tent is torn. Order A-1000.\n").input_ids])
    with torch.no_grad(), attach(base, made.prefix):
        ours = base.model(tokens).logits
    with torch.no_grad():
        expected = theirs(input_ids=tokens).logits
    assert (ours - expected).abs().max() < 1e-4 * float(expected.abs().max())
