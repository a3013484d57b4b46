"""To PEFT and back: the same bits, and PEFT says the same words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from foreword.artifact import Geometry, LayerGeometry, PromptFormat, Site, pack
from foreword.artifact.peft import read_peft, write_peft
from foreword.artifact.tensors import expected_tensors
from foreword.errors import ArtifactError, CompatibilityError, ForewordError, StorageError
from foreword.prefix.attach import attach
from foreword.prefix.base_model import BaseModel
from foreword.prefix.kv import PrefixKV
from tests.artifact.samples import sample
from tests.tiny import ids, tiny

OPTIONS = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}


def adapter(family: str, path: Path, kind: str = "prefix") -> peft.PeftModel:
    """A random adapter, saved by PEFT itself."""
    config = {
        "prefix": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
        "projection": peft.PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=5, prefix_projection=True,
            encoder_hidden_size=16,
        ),
        "cartridge": peft.CartridgeConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=5, num_frozen_tokens=1
        ),
        "lora": peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]),
    }[kind]  # fmt: skip
    torch.manual_seed(3)
    model = peft.get_peft_model(tiny(family), config).eval()
    model.save_pretrained(path)
    return model


def said(model: Any, tokens: torch.Tensor) -> list[list[int]]:
    out = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **OPTIONS)
    return [row[-10:] for row in out.tolist()]


def packed(base: BaseModel, found: Any) -> Any:
    return pack(
        name="imported",
        version="1.0.0",
        created="2026-01-31T12:00:00Z",
        base=base.ref,
        geometry=found.geometry,
        length=found.length,
        dtype=found.dtype,
        prompt=PromptFormat("template", "{input}"),
        training={},
        probes=(),
        tensors=found.tensors,
    )


@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama", "prefix"), ("gpt2", "prefix"), ("mistral", "prefix"), ("llama", "cartridge"),
     ("llama", "projection")],
)  # fmt: skip
def test_a_round_trip_is_exact_and_peft_says_the_same(
    family: str, kind: str, tmp_path: Path
) -> None:
    original = adapter(family, tmp_path / "in", kind)
    base = BaseModel.from_model(tiny(family))
    found = read_peft(tmp_path / "in", base.geometry)
    artifact = packed(base, found)
    write_peft(artifact, tmp_path / "out")
    before = load_file(tmp_path / "in" / "adapter_model.safetensors")["prompt_embeddings"]
    after = load_file(tmp_path / "out" / "adapter_model.safetensors")["prompt_embeddings"]
    assert torch.equal(before, after)
    tokens = ids(2, 6)
    theirs = said(peft.PeftModel.from_pretrained(tiny(family), tmp_path / "out").eval(), tokens)
    with attach(base, PrefixKV.from_artifact(artifact)):
        ours = said(base.model, tokens)
    assert said(original, tokens) == theirs == ours
    assert ours != said(base.model, tokens), "the prefix says something of its own"


def test_bfloat16_is_moved_bit_for_bit(tmp_path: Path) -> None:
    adapter("llama", tmp_path / "in")
    path = tmp_path / "in" / "adapter_model.safetensors"
    matrix = load_file(path)["prompt_embeddings"].bfloat16()
    save_file({"prompt_embeddings": matrix}, path)
    base = BaseModel.from_model(tiny("llama"))
    found = read_peft(tmp_path / "in", base.geometry)
    assert found.dtype == "bfloat16"
    write_peft(packed(base, found), tmp_path / "out")
    after = load_file(tmp_path / "out" / "adapter_model.safetensors")["prompt_embeddings"]
    assert torch.equal(after, matrix)


def refused(directory: Path, geometry: Geometry) -> str:
    with pytest.raises(ForewordError) as caught:
        read_peft(directory, geometry)
    return caught.value.code


def test_what_is_no_prefix_for_this_base_is_refused(tmp_path: Path) -> None:
    geometry = BaseModel.from_model(tiny("llama")).geometry
    adapter("llama", tmp_path / "lora", "lora")
    assert refused(tmp_path / "lora", geometry) == "peft.kind"
    adapter("llama", tmp_path / "good")
    assert refused(tmp_path / "good", BaseModel.from_model(tiny("gpt2")).geometry) == "peft.shape"
    uneven = {0: LayerGeometry(2, 8, 8), 1: LayerGeometry(1, 8, 8)}
    assert refused(tmp_path / "good", Geometry({Site.DECODER: uneven})) == "peft.layers"
    weights = tmp_path / "good" / "adapter_model.safetensors"
    weights.rename(tmp_path / "good" / "adapter_model.bin")
    assert refused(tmp_path / "good", geometry) == "peft.pickle"
    config = tmp_path / "good" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_virtual_tokens": "5"}))
    assert refused(tmp_path / "good", geometry) == "peft.config"
    assert refused(tmp_path / "nowhere", geometry) == "artifact.missing"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"peft_type": ["x"] * 5000}, "peft.kind"),
        ({"peft_type": None}, "peft.kind"),
        ({"num_virtual_tokens": ["x"] * 5000}, "peft.config"),
        ({"num_virtual_tokens": True}, "peft.config"),
        ({"num_virtual_tokens": 10**9}, "peft.config"),
        ({"num_virtual_tokens": 6}, "peft.shape"),
    ],
)
def test_a_config_that_lies_is_refused_in_few_words(
    changed: dict[str, Any], code: str, tmp_path: Path
) -> None:
    base = BaseModel.from_model(tiny("llama"))
    adapter("llama", tmp_path / "in")
    config = tmp_path / "in" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changed}))
    with pytest.raises(ForewordError) as caught:
        read_peft(tmp_path / "in", base.geometry)
    assert caught.value.code == code
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"1" * 9000])
def test_a_config_that_is_no_config_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(data)
    assert refused(tmp_path, sample().manifest.geometry) in ("peft.config", "peft.kind")


def test_a_far_wider_adapter_belongs_to_another_base(tmp_path: Path) -> None:
    # More bytes than this base's matrix could have: still not a damaged file.
    adapter("llama", tmp_path / "in")
    path = tmp_path / "in" / "adapter_model.safetensors"
    save_file({"prompt_embeddings": torch.ones(5, 4096)}, path)
    base = BaseModel.from_model(tiny("llama"))
    assert refused(tmp_path / "in", base.geometry) == "peft.shape"


@pytest.mark.parametrize(
    "layers",
    [
        {0: LayerGeometry(1, 2, 2), 1: LayerGeometry(2, 2, 2)},
        {0: LayerGeometry(1, 2, 2), 2: LayerGeometry(1, 2, 2)},
        {1: LayerGeometry(1, 2, 2)},
        {0: LayerGeometry(1, 2, 4)},
    ],
    ids=["heads differ", "a layer left out", "the first left out", "key and value differ"],
)
def test_layers_peft_cannot_hold_are_not_written(
    layers: dict[int, LayerGeometry], tmp_path: Path
) -> None:
    geometry = Geometry({Site.DECODER: layers})
    zeros = {s.name: bytes(s.nbytes) for s in expected_tensors(geometry, 2, "float16")}
    artifact = sample(geometry=geometry, length=2, dtype="float16", tensors=zeros)
    with pytest.raises(CompatibilityError) as caught:
        write_peft(artifact, tmp_path / "out")
    assert caught.value.code == "peft.layers"
    assert list(tmp_path.iterdir()) == []


FULL = (
    "import resource, signal, sys\n"
    "from foreword.artifact import Geometry, LayerGeometry, Site\n"
    "from foreword.artifact.peft import write_peft\n"
    "from foreword.errors import StorageError\n"
    "from tests.artifact.samples import sample\n"
    "layer = LayerGeometry(1, 16, 16)\n"
    "zeros = {f'decoder.0.{part}': bytes(1024) for part in ('key', 'value')}\n"
    "artifact = sample(geometry=Geometry({Site.DECODER: {0: layer}}), length=16, tensors=zeros)\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"
    "try: write_peft(artifact, sys.argv[1])\n"
    "except StorageError as e: print(e.code)\n"
)


def test_a_full_disk_is_named_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "out")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout.strip() == "storage.full", run.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_peft_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError) as caught:
        write_peft(sample(), tmp_path / "out")
    assert caught.value.code == "peft.sites"
    (tmp_path / "there").mkdir()
    base = BaseModel.from_model(tiny("llama"))
    adapter("llama", tmp_path / "in")
    artifact = packed(base, read_peft(tmp_path / "in", base.geometry))
    with pytest.raises(StorageError):
        write_peft(artifact, tmp_path / "there")
    with pytest.raises(ArtifactError):
        read_peft(tmp_path / "there", base.geometry)
