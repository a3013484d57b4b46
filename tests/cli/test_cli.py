"""The command line as a user meets it: in its own process, by its output and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foreword.artifact import write_artifact
from foreword.cli.generate import _write
from tests.artifact.samples import sample
from tests.tiny import shouting, tiny, tokenizer

RUN = "from foreword.cli.main import main; main()"
BLOCK = "import sys\nfor n in ('torch', 'transformers'): sys.modules[n] = None\n"


def foreword(
    *words: str, code: str = RUN, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    if home is not None:
        env["FOREWORD_HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=env, timeout=120
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, a dataset, and a trained artifact, made by the commands themselves."""
    path = tmp_path_factory.mktemp("cli")
    tiny("llama").save_pretrained(path / "base")
    tokenizer().save_pretrained(path / "base")
    rows = "".join(json.dumps(row) + "\n" for row in shouting())
    (path / "rows.jsonl").write_text(rows)
    trained = foreword(
        "train", "--base", str(path / "base"), "--data", str(path / "rows.jsonl"),
        "--out", str(path / "made"), "--set", "train.steps=60", "--set", "prefix.length=4",
        "--set", "name=acme/loud", home=path / "home",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert "held-out loss" in trained.stdout
    assert "foreword generate --base" in trained.stdout
    assert "step 60/60" in trained.stderr
    return path


def test_help_is_fast_and_light() -> None:
    script = BLOCK + "sys.modules['numpy'] = None\n" + RUN
    seconds = []
    for _ in range(5):
        before = os.times()
        done = foreword("--help", code=script)
        after = os.times()
        # Processor time: a busy machine is not our fault.
        seconds.append(sum(after[2:4]) - sum(before[2:4]))
        assert done.returncode == 0, done.stderr
    assert "train" in done.stdout
    assert min(seconds) < 0.5


def one_line(done: subprocess.CompletedProcess[str], code: str, exit_code: int) -> str:
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith(f"error[{code}]: "), done.stderr
    assert done.returncode == exit_code
    assert "Traceback" not in done.stderr
    return lines[-1]


def test_mistakes_give_one_line_and_their_exit_code(place: Path) -> None:
    empty = place / "empty.jsonl"
    empty.write_text("")
    (place / "columns.jsonl").write_text('{"input": "a", "answer": "b"}\n')
    train = ("train", "--base", str(place / "base"), "--data")
    good, new = str(place / "rows.jsonl"), ("--out", str(place / "new"))
    home = place / "home"
    message = one_line(
        foreword(*train, good, *new, "--set", "train.stepz=1"), "config.unknown_key", 2
    )
    assert "train.steps" in message
    one_line(foreword(*train, str(empty), *new, home=home), "data.empty", 2)
    message = one_line(
        foreword(*train, str(place / "columns.jsonl"), *new, home=home), "data.missing_column", 2
    )
    assert "columns.jsonl:1" in message
    one_line(foreword(*train, good, "--out", str(place), home=home), "storage.exists", 6)
    one_line(foreword("inspect", str(place / "none")), "artifact.missing", 3)
    one_line(foreword("generate", "--base", "not/here", "hi", home=home), "base.missing", 4)
    done = foreword("generate", "--base", str(place / "base"), home=home)
    one_line(done, "usage", 2)
    assert foreword("train").returncode == 2, "missing options are click's own error"
    assert not (place / "new").exists()


def test_debug_shows_the_trace() -> None:
    done = foreword("inspect", "nowhere", "--debug")
    assert "Traceback" in done.stderr
    assert done.returncode == 3


BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}
"""As in most shells: what is written reaches the device only when it is flushed."""


def test_a_full_disk_behind_stdout_is_no_bug(tmp_path: Path) -> None:
    write_artifact(sample(), tmp_path / "made")
    # Opened, never replaced: the device only refuses the bytes.
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "inspect", "--json", str(tmp_path / "made")],
            stdout=full, stderr=subprocess.PIPE, text=True, env=BUFFERED,
        )  # fmt: skip
    assert done.returncode == 6
    assert done.stderr.startswith("error[storage]")


def test_a_reader_that_leaves_early_is_told_nothing(tmp_path: Path) -> None:
    write_artifact(sample(), tmp_path / "made")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "inspect", "--json", str(tmp_path / "made")],
            stdout=pipe, stderr=subprocess.PIPE, text=True, env=BUFFERED,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def test_a_missing_optional_part_says_how_to_install_it() -> None:
    done = foreword("base", "fingerprint", "some/base", code=BLOCK + RUN)
    assert done.returncode == 2
    assert "pip install 'foreword[train]'" in done.stderr


def test_inspect_needs_no_torch(tmp_path: Path) -> None:
    made = write_artifact(sample(), tmp_path / "made")
    shown = foreword("inspect", str(made), "--json", code=BLOCK + RUN)
    value = json.loads(shown.stdout)
    assert value["digest"] == str(sample().digest)
    assert value["manifest"]["name"] == "acme/support"
    plain = foreword("inspect", str(made), code=BLOCK + RUN)
    assert str(sample().digest) in plain.stdout
    data = (made / "prefix.safetensors").read_bytes()
    (made / "prefix.safetensors").write_bytes(data[:-1] + b"\x01")
    one_line(foreword("inspect", str(made)), "artifact.digest", 3)


def test_rows_choose_their_own_prefix_in_one_batch(place: Path) -> None:
    made, out = str(place / "made"), place / "out" / "answers.jsonl"
    rows = [
        {"input": "ab1", "prefix": made},
        {"input": "ab1", "prefix": None},
        {"input": "cd2"},
    ]
    (place / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = foreword(
        "generate", "--base", str(place / "base"), "--prefix", made,
        "--input", str(place / "ask.jsonl"), "--out", str(out), "--max-new-tokens", "6",
        home=place / "home",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(a) for a in answers] == [{"input", "text", "prefix", "digest"}] * 3
    assert [a["prefix"] for a in answers] == ["acme/loud@0.1.0", None, "acme/loud@0.1.0"]
    assert answers[0]["digest"].startswith("sha256:")
    assert answers[1]["digest"] is None
    assert answers[0]["text"] != answers[1]["text"]
    assert [p.name for p in out.parent.iterdir()] == ["answers.jsonl"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "answers"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _write(pipe, "one\n")
        assert os.read(reader, 100) == b"one\n"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["answers"]


def test_generation_is_repeatable_with_a_seed(place: Path) -> None:
    ask = ("generate", "--base", str(place / "base"), "--prefix", str(place / "made"), "ab1",
           "--temperature", "1.5", "--max-new-tokens", "12", "--seed")  # fmt: skip
    first, again, other = (foreword(*ask, s, home=place / "home").stdout for s in ("1", "1", "2"))
    assert first == again != other


def test_an_artifact_for_another_base_is_refused(place: Path) -> None:
    tiny("llama", seed=1).save_pretrained(place / "other")
    tokenizer().save_pretrained(place / "other")
    done = foreword(
        "generate", "--base", str(place / "other"), "--prefix", str(place / "made"), "ab1",
        home=place / "home",
    )  # fmt: skip
    assert "was made for" in one_line(done, "base.fingerprint", 4)
    made = place / "made"
    data = (made / "manifest.json").read_bytes()
    try:
        (made / "manifest.json").write_bytes(data.replace(b'"length":4', b'"length":5'))
        done = foreword(
            "generate", "--base", str(place / "base"), "--prefix", str(made), "ab1",
            home=place / "home",
        )  # fmt: skip
        assert done.returncode == 3
    finally:
        (made / "manifest.json").write_bytes(data)


def test_bases_are_named_listed_and_fingerprinted(place: Path, tmp_path: Path) -> None:
    assert "no bases yet" in foreword("base", "list", home=tmp_path).stdout
    added = foreword("base", "add", "mine", str(place / "base"), home=tmp_path)
    assert added.returncode == 0, added.stderr
    listed = json.loads(foreword("base", "list", "--json", home=tmp_path).stdout)
    assert [entry["name"] for entry in listed] == ["mine"]
    prints = [
        foreword("base", "fingerprint", ref, home=tmp_path).stdout.strip()
        for ref in ("mine", str(place / "base"))
    ]
    assert prints[0] == prints[1] != ""
    facts = json.loads(foreword("doctor", "--base", "mine", "--json", home=tmp_path).stdout)
    assert facts["sites"] == "decoder 3 layers"
    assert facts["self-check"].startswith("exact")
    assert facts["kernels"] == "compiled"


def test_to_peft_and_back(place: Path) -> None:
    home = place / "home"
    done = foreword("export-peft", str(place / "made"), "--out", str(place / "adapter"), home=home)
    assert done.returncode == 0, done.stderr
    done = foreword(
        "import-peft", str(place / "adapter"), "--base", str(place / "base"),
        "--out", str(place / "back"), home=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = (place / "made" / "prefix.safetensors").read_bytes()
    assert (place / "back" / "prefix.safetensors").read_bytes() == first
