"""Whole runs on tiny models: they learn, they resume, and they refuse to leave rubbish behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foreword.artifact import Site, open_artifact
from foreword.errors import (
    CompatibilityError,
    ConfigError,
    DataError,
    PromptTooLong,
    StorageError,
    TrainingError,
    UnsupportedModel,
    UsageError,
)
from foreword.prefix.base_model import BaseModel
from foreword.prefix.loading import load_prefix
from foreword.prefix.prompts import DEFAULT
from foreword.serving.generation import GenerationRequest, generate
from foreword.tuning.checks import judge
from foreword.tuning.data import Dataset, load_dataset
from foreword.tuning.encoders import build_encoder
from foreword.tuning.objective import mean_loss
from foreword.tuning.recipe import DataSettings, PrefixSettings, Recipe, TrainSettings
from foreword.tuning.runlog import read_log
from foreword.tuning.starts import make_start
from foreword.tuning.tokens import tokenize
from foreword.tuning.train import Progress, TrainedPrefix, train
from tests.tiny import shouting, tiny_base


def data(count: int = 40) -> Dataset:
    return load_dataset(shouting(count), DataSettings(), seed=0)


def recipe(steps: int = 12, **prefix: object) -> Recipe:
    return Recipe(
        prefix=PrefixSettings(length=4, **prefix),  # type: ignore[arg-type]
        train=TrainSettings(steps=steps, eval_every=4, checkpoint_every=3),
    )


def run(
    base: BaseModel, out: Path, settings: Recipe | None = None, dataset: Dataset | None = None
) -> TrainedPrefix:
    return train(settings or recipe(), base, dataset or data(), out)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bart", "t5"])
def test_a_run_learns_and_its_artifact_loads(family: str, tmp_path: Path) -> None:
    base = tiny_base(family)
    result = run(base, tmp_path / "out", recipe(120))
    assert result.outcome.held_out < result.outcome.frozen
    artifact = open_artifact(tmp_path / "out")
    assert artifact.digest == result.artifact.digest
    assert artifact.manifest.geometry == base.geometry
    loaded = load_prefix(base, artifact)
    requests = [GenerationRequest({"input": "ab1"}, loaded), GenerationRequest({"input": "ab1"})]
    with_prefix, without = generate(base, requests, max_new_tokens=8)
    assert with_prefix.digest == artifact.digest
    assert without.digest is None
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"manifest.json", "prefix.safetensors", "report.html", "training.jsonl"}
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("encoder", ["direct", "mlp"])
@pytest.mark.parametrize("stop", [1, 3, 7, 11])
def test_a_stopped_run_ends_bit_for_bit_as_an_uninterrupted_one(
    encoder: str, stop: int, tmp_path: Path
) -> None:
    base = tiny_base()
    settings = Recipe(
        prefix=PrefixSettings(length=4, encoder=encoder, hidden=8),  # type: ignore[arg-type]
        train=TrainSettings(steps=12, eval_every=4, checkpoint_every=3, lr=0.05),
    )
    whole = run(base, tmp_path / "whole", settings)

    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, base, data(), tmp_path / "parts", progress=interrupt)
    parts = run(base, tmp_path / "parts", settings)
    assert parts.artifact.tensor_bytes == whole.artifact.tensor_bytes
    assert parts.outcome == whole.outcome
    steps = [entry["step"] for entry in read_log(tmp_path / "parts" / "training.jsonl")]
    assert steps == list(range(1, 13)), "each step is logged once"


def test_a_killed_process_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = run(tiny_base(), tmp_path / "whole")
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.tuning.test_train import *\n"
        "def die(p):\n"
        "    if p.step == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(recipe(), tiny_base(), data(), Path(sys.argv[1]), progress=die)\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "parts")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "parts").exists()
    parts = run(tiny_base(), tmp_path / "parts")
    assert parts.artifact.tensor_bytes == whole.artifact.tensor_bytes


def test_an_unfinished_run_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    base = tiny_base()

    def interrupt(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(), base, data(), tmp_path / "out", progress=interrupt)
    with pytest.raises(UsageError, match="other settings"):
        run(base, tmp_path / "out", recipe(13))
    with pytest.raises(UsageError, match="other data"):
        run(base, tmp_path / "out", dataset=data(41))
    with pytest.raises(UsageError, match="other base"):
        run(tiny_base(seed=1), tmp_path / "out")
    run(base, tmp_path / "out")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "checkpoint.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(StorageError, match="cannot be read"):
        run(tiny_base(), tmp_path / "out")


def test_a_diverging_run_stops_and_keeps_its_last_good_state(tmp_path: Path) -> None:
    settings = Recipe(
        prefix=PrefixSettings(length=4), train=TrainSettings(steps=60, lr=1e38, checkpoint_every=1)
    )
    with pytest.raises(TrainingError, match="last good state") as caught:
        run(tiny_base(), tmp_path / "out", settings)
    assert caught.value.code == "training.diverged"
    assert (tmp_path / "out.partial" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "out").exists()


def test_a_prefix_without_effect_is_not_written(tmp_path: Path) -> None:
    base = tiny_base()
    # Made almost invisible: whatever the last layer attends to, it hardly says.
    base.model.model.layers[2].self_attn.o_proj.weight.data.mul_(1e-6)
    base = BaseModel.from_model(base.model, base.tokenizer)
    with pytest.raises(TrainingError) as caught:
        run(base, tmp_path / "out", recipe(4, layers=[2]))
    assert caught.value.code == "training.no_effect"
    assert not (tmp_path / "out").exists()


def test_a_prefix_that_is_no_better_than_none_is_refused() -> None:
    base, settings = tiny_base(), PrefixSettings(length=4)
    rows = tokenize(base, data().train, DEFAULT, 4)
    start = make_start(base, settings, rows, seed=0)
    encoder = build_encoder(settings, start.prefix, start.scale)
    reached = mean_loss(base, start.prefix, rows, 4096)
    judge(base, encoder, start.prefix, rows, reached + 0.01, 4096)
    with pytest.raises(TrainingError) as caught:
        judge(base, encoder, start.prefix, rows, reached - 0.01, 4096)
    assert caught.value.code == "training.did_not_learn"


def test_an_export_that_differs_from_its_module_is_refused() -> None:
    base, settings = tiny_base(), PrefixSettings(length=4)
    rows = tokenize(base, data().train, DEFAULT, 4)
    start = make_start(base, settings, rows, seed=0)
    encoder = build_encoder(settings, start.prefix, start.scale)
    other = make_start(base, PrefixSettings(length=4, init="random"), rows, seed=0).prefix
    with pytest.raises(TrainingError) as caught:
        judge(base, encoder, other, rows, 100.0, 4096)
    assert caught.value.code == "training.export_parity"


def test_a_site_without_gradient_is_named(tmp_path: Path) -> None:
    base = tiny_base("bart")
    # A cross-attention whose output goes nowhere.
    for layer in base.model.model.decoder.layers:
        layer.encoder_attn.out_proj.weight.data.zero_()
    base = BaseModel.from_model(base.model, base.tokenizer)
    with pytest.raises(TrainingError, match="no gradient reaches the encoder and cross prefix"):
        run(base, tmp_path / "out")


def test_early_stopping_keeps_the_best_parameters(tmp_path: Path) -> None:
    settings = Recipe(
        prefix=PrefixSettings(length=4),
        train=TrainSettings(steps=200, eval_every=2, patience=2, lr=0.5, schedule="constant"),
    )
    result = run(tiny_base(), tmp_path / "out", settings)
    log = read_log(tmp_path / "out" / "training.jsonl")
    held_out = {entry["step"]: entry["held_out"] for entry in log if "held_out" in entry}
    best = result.artifact.manifest.training["run"]["best_step"]
    assert held_out[best] == min(held_out.values())
    assert len(log) < 200
    assert result.outcome.held_out == pytest.approx(held_out[best], rel=1e-5)


@pytest.mark.parametrize("init", ["text", "random", "zero"])
@pytest.mark.parametrize("encoder", ["direct", "mlp"])
def test_an_encoder_gives_exactly_its_start_before_the_first_step(init: str, encoder: str) -> None:
    base = tiny_base("bart")
    settings = PrefixSettings(length=4, init=init, encoder=encoder, hidden=8)  # type: ignore[arg-type]
    dataset = data()
    rows = tokenize(base, dataset.train, DEFAULT, 4)
    start = make_start(base, settings, rows, seed=0)
    made = build_encoder(settings, start.prefix, start.scale)()
    for (_, _, expected), (_, _, got) in zip(start.prefix, made, strict=True):
        assert torch.equal(expected.key, got.key)
        assert torch.equal(expected.value, got.value)


def test_only_the_chosen_sites_and_layers_are_trained(tmp_path: Path) -> None:
    base = tiny_base("bart")
    settings = recipe(60, sites=[Site.DECODER, Site.CROSS], layers=[0, 2])
    result = run(base, tmp_path / "out", settings)
    geometry = open_artifact(tmp_path / "out").manifest.geometry
    assert {s: sorted(layers) for s, layers in geometry.sites.items()} == {
        Site.DECODER: [0, 2],
        Site.CROSS: [0, 2],
    }
    assert load_prefix(base, result.artifact).kv.length == 4


def test_an_artifact_is_a_start_for_the_next_run(tmp_path: Path) -> None:
    base = tiny_base()
    first = run(base, tmp_path / "first", recipe(30))
    again = run(
        base, tmp_path / "again", recipe(4, init="artifact", init_artifact=str(tmp_path / "first"))
    )
    assert again.outcome.held_out <= first.outcome.held_out * 1.05


def test_settings_that_the_model_cannot_follow_are_named(tmp_path: Path) -> None:
    base = tiny_base()
    with pytest.raises(ConfigError, match=r"prefix\.sites names cross"):
        run(base, tmp_path / "a", recipe(sites=["cross"]))
    with pytest.raises(ConfigError, match="layers 0 to 2"):
        run(base, tmp_path / "b", recipe(layers=[7]))
    with pytest.raises(UnsupportedModel, match="encoder without a decoder"):
        run(tiny_base("bert"), tmp_path / "c")
    (tmp_path / "d").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        run(base, tmp_path / "d")


def test_rows_and_prompts_that_do_not_fit_the_context_are_refused(tmp_path: Path) -> None:
    base = tiny_base()
    long = [{"input": "x" * 70 + str(i), "target": "y"} for i in range(4)]
    with pytest.raises(DataError, match=r"row:\d: 7\d tokens and 4 virtual ones"):
        run(base, tmp_path / "a", dataset=load_dataset(long, DataSettings(), seed=0))
    result = run(base, tmp_path / "out", recipe(30))
    prefix = load_prefix(base, result.artifact)
    room = 64 - 4 - 10  # context, virtual tokens, new tokens
    fits = GenerationRequest({"input": "x" * (room - 1)}, prefix)  # and a line break
    generate(base, [fits], max_new_tokens=10)
    with pytest.raises(PromptTooLong, match="4 virtual tokens and 10 new"):
        generate(base, [GenerationRequest({"input": "x" * room}, prefix)], max_new_tokens=10)
    generate(base, [GenerationRequest({"input": "x" * room})], max_new_tokens=10)


def test_a_prefix_for_another_base_is_refused(tmp_path: Path) -> None:
    artifact = run(tiny_base(), tmp_path / "out", recipe(30)).artifact
    with pytest.raises(CompatibilityError) as caught:
        load_prefix(tiny_base(seed=1), artifact)
    assert caught.value.code == "base.fingerprint", "same shapes, other weights"
    with pytest.raises(CompatibilityError):
        load_prefix(tiny_base("gpt2"), artifact)
    changed = tiny_base()
    changed.model.model.layers[1].mlp.down_proj.weight.data.mul_(1.5)
    with pytest.raises(CompatibilityError) as caught:
        load_prefix(changed, artifact)
    assert caught.value.code == "base.probe", "the weights were changed after loading"


def test_a_full_disk_leaves_no_artifact_and_the_run_can_be_finished(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tests.tuning.test_train import *\n"
        "base, rows = tiny_base(), data()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try: train(recipe(), base, rows, Path(sys.argv[1]))\n"
        "except StorageError as e: print(e.code); sys.exit(e.exit_code)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    failed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert failed.returncode == StorageError.exit_code, failed.stderr
    assert failed.stdout.startswith("storage.")
    assert not (tmp_path / "out").exists()
    assert [p for p in tmp_path.iterdir() if p.name != "out.partial"] == []
    run(tiny_base(), tmp_path / "out")
    open_artifact(tmp_path / "out")
