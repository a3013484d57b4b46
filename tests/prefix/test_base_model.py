"""A base is known by what it is, not by where it lies or how it was cut into files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from foreword.errors import CompatibilityError, ConfigError
from foreword.prefix.base_model import BaseModel, load_base
from foreword.prefix.bases import add_base, list_bases
from foreword.prefix.files import identify
from foreword.prefix.selfcheck import check_attachment
from tests.tiny import ids, tiny, tokenizer


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def saved(path: Path, model: PreTrainedModel | None = None, shard: str = "1GB") -> Path:
    (model or tiny("llama")).save_pretrained(path, max_shard_size=shard)
    tokenizer().save_pretrained(path)
    return path


def test_sharding_and_place_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole")
    cut = saved(tmp_path / "cut", shard="10KB")
    assert len(list(cut.glob("*.safetensors"))) > 1
    first, second = identify(whole), identify(cut)
    assert first.fingerprint == second.fingerprint
    assert first.tokenizer == second.tokenizer
    assert load_base(whole).ref == first
    assert load_base(whole, dtype=torch.bfloat16).ref.fingerprint == first.fingerprint


def test_any_change_of_weights_configuration_or_words_changes_it(tmp_path: Path) -> None:
    before = identify(saved(tmp_path / "a"))
    model = tiny("llama")
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1e-6
    assert identify(saved(tmp_path / "b", model)).fingerprint != before.fingerprint
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 5e5
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    assert identify(tmp_path / "a").fingerprint != before.fingerprint
    words = tokenizer()
    words.chat_template = "{{ messages }}"
    words.save_pretrained(tmp_path / "a")
    assert identify(tmp_path / "a").tokenizer != before.tokenizer


def test_a_file_is_read_through_once_and_again_when_it_changes(tmp_path: Path, home: Path) -> None:
    path = saved(tmp_path / "base")
    before = identify(path).fingerprint
    notes = list((home / "fingerprints").iterdir())
    assert len(notes) == 1
    # The note is what is used: a second load does not read the weights.
    notes[0].write_text(json.dumps({"made": "up"}))
    assert identify(path).fingerprint != before
    weights = path / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert identify(path).fingerprint == before


def test_names_are_kept_and_listed(tmp_path: Path) -> None:
    path = saved(tmp_path / "base")
    assert add_base("mine", path).directory == path.resolve()
    assert [base.name for base in list_bases()] == ["mine"]
    assert load_base("mine").ref.fingerprint == identify(path).fingerprint
    with pytest.raises(ConfigError):
        add_base("../mine", path)
    with pytest.raises(CompatibilityError, match=r"no config\.json"):
        add_base("other", tmp_path)


def test_a_hub_id_is_served_from_the_local_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The hub's own cache layout, as a download would leave it; no network is touched.
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    saved(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    script = (
        "import sys; from foreword.prefix.base_model import load_base\n"
        "print(load_base('someone/tiny').ref.fingerprint)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    expected = identify(repository / "snapshots" / revision).fingerprint
    assert run.stdout.strip() == str(expected), run.stderr


@pytest.mark.parametrize("ref", ["no/such-model", "nowhere", "./missing/dir", "missing.gguf"])
def test_a_base_that_is_not_there_is_named(ref: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CompatibilityError) as caught:
        load_base(ref)
    assert caught.value.code == "base.missing"
    assert ref in str(caught.value)


def test_pickled_and_broken_weights_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "base")
    weights = path / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    torch.save({}, path / "pytorch_model.bin")
    with pytest.raises(CompatibilityError, match="safetensors"):
        load_base(path)
    weights.write_bytes(data[:8] + b"\xff" + data[9:40])
    with pytest.raises(CompatibilityError) as caught:
        identify(path)
    assert caught.value.code == "base.weights"
    shutil.rmtree(path)
    path.mkdir()
    with pytest.raises(CompatibilityError) as caught:
        load_base(path)
    assert caught.value.code == "base.unreadable"


@torch.no_grad()
def test_the_base_is_frozen_and_unchanged(tmp_path: Path) -> None:
    base = load_base(saved(tmp_path / "base"))
    assert not any(p.requires_grad for p in base.model.parameters())
    assert not base.model.training
    tokens = ids(1, 9)
    assert torch.equal(base.model(tokens).logits, tiny("llama")(tokens).logits)


def test_instrumenting_twice_changes_nothing() -> None:
    model = tiny("llama")
    first = BaseModel.from_model(model)
    again = BaseModel.from_model(model)
    assert again.hub is first.hub
    assert check_attachment(again).ok
