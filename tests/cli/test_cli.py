"""The command line from outside: exit codes, one line per error, and no torch where none is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from foreword import errors
from foreword.artifact import (
    Artifact,
    BaseRef,
    Digest,
    Geometry,
    LayerGeometry,
    Probe,
    PromptFormat,
    Site,
    pack,
    write_artifact,
)
from foreword.cli.main import main

MAIN = "from foreword.cli.main import main; main()"
HEAVY = ("torch", "transformers", "safetensors", "numpy", "pyarrow", "datasets", "jinja2")
BLOCK = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'safetensors']))\n"


def foreword(
    *arguments: str | Path, cwd: Path, code: str = MAIN
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={
            **os.environ,
            "FOREWORD_HOME": str(cwd / "home"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "80",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def artifact(**changes: Any) -> Artifact:
    facts: dict[str, Any] = {
        "name": "team/loud",
        "version": "1.2.3",
        "created": "2026-01-31T12:00:00Z",
        "base": BaseRef("demo", Digest("ab" * 32), None, "llama", 64),
        "geometry": Geometry({Site.DECODER: {0: LayerGeometry(2, 4, 4)}}),
        "length": 3,
        "dtype": "float32",
        "prompt": PromptFormat("template", "{input}\n"),
        "training": {},
        "probes": (Probe((1, 2), (0,), (0.5,)),),
        "tensors": {"decoder.0.key": bytes(96), "decoder.0.value": bytes(96)},
    }
    return pack(**(facts | changes))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return write_artifact(artifact(), tmp_path / "loud")


def write(file: Path, *rows: object) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def refused(run: subprocess.CompletedProcess[str], code: str, exit_code: int) -> str:
    """The one line a refusal prints."""
    assert run.returncode == exit_code, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"error[{code}]: ")
    return line


def test_help_comes_at_once_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom foreword.cli.main import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["--version"], ["train", "--help"], ["base", "--help"]):
        run = foreword(*arguments, cwd=tmp_path, code=code)
        assert run.returncode == 0
        assert run.stderr == "[]\n"

    best = 9.0
    for _ in range(5):
        start = time.perf_counter()
        run = foreword("--help", cwd=tmp_path)
        best = min(best, time.perf_counter() - start)
    assert "import-peft" in run.stdout
    assert best < 0.5


def test_without_a_command_the_help_is_shown_and_the_exit_code_says_usage(tmp_path: Path) -> None:
    for arguments in ([], ["base"]):
        run = foreword(*arguments, cwd=tmp_path)
        assert run.returncode == 2
        assert "Usage:" in run.stdout + run.stderr
        assert "error" not in run.stderr


def test_version_is_the_package_version(tmp_path: Path) -> None:
    from foreword import __version__

    assert foreword("--version", cwd=tmp_path).stdout == f"foreword {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "No such command"),
        (["train", "--bas", "x"], "--bas"),
        (["train", "--data", "x", "--out", "y"], "--base"),
        (["inspect"], "Missing argument"),
        (["inspect", "a", "b"], "unexpected extra argument"),
        (["generate", "--base", "x", "--max-new-tokens", "0", "hi"], "--max-new-tokens"),
        (["generate", "--base", "x", "--max-new-tokens", "few", "hi"], "--max-new-tokens"),
        (["generate", "--base", "x"], "nothing to answer"),
    ],
)
def test_a_wrong_command_line_is_the_users_mistake_and_not_a_bug(
    arguments: Sequence[str], says: str, tmp_path: Path
) -> None:
    line = refused(foreword(*arguments, cwd=tmp_path), "usage", 2)

    assert says.lower() in line.lower()


TRAIN = ("train", "--base", "nowhere", "--data", "rows.jsonl", "--out", "out")


def test_an_unknown_setting_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    run = foreword(*TRAIN, "--set", "train.step=3", cwd=tmp_path, code=BLOCK + MAIN)

    assert "did you mean 'train.steps'?" in refused(run, "config.unknown_key", 2)


def test_an_unknown_setting_in_a_recipe_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("prefix:\n  lenght: 3\n")
    run = foreword(*TRAIN, "--recipe", "r.yaml", cwd=tmp_path, code=BLOCK + MAIN)

    line = refused(run, "config.unknown_key", 2)
    assert "(r.yaml)" in line
    assert "'prefix.length'" in line


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        ([], "data.empty", "there are no rows in rows.jsonl"),
        ([{"input": "a", "answer": "b"}], "data.missing_column", "rows.jsonl:1 has no column"),
        (None, "data.missing", "there is no file rows.jsonl"),
    ],
)
def test_useless_data_is_refused_before_the_base_is_looked_for(
    rows: list[object] | None, code: str, says: str, tmp_path: Path
) -> None:
    if rows is not None:
        write(tmp_path / "rows.jsonl", *rows)

    assert says in refused(foreword(*TRAIN, cwd=tmp_path), code, 2)
    assert not (tmp_path / "out").exists()


def test_an_output_directory_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", *({"input": f"{i}", "target": "x"} for i in range(9)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")

    assert "choose another --out" in refused(foreword(*TRAIN, cwd=tmp_path), "storage.exists", 6)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_base_directory_without_a_model_is_a_compatibility_error(tmp_path: Path) -> None:
    (tmp_path / "nowhere").mkdir()
    run = foreword("generate", "--base", "./nowhere", "hi", cwd=tmp_path)

    assert run.returncode == 4, run.stderr
    assert run.stderr.startswith("error[")
    assert len(run.stderr.splitlines()) == 1


def test_a_missing_artifact_is_refused_by_every_command_that_reads_one(tmp_path: Path) -> None:
    for arguments in (
        ("inspect", "none"),
        ("export-peft", "none", "--out", "adapter"),
        ("generate", "--base", "demo", "--prefix", "none", "hi"),
    ):
        run = foreword(*arguments, cwd=tmp_path, code=BLOCK + MAIN)
        assert "there is no artifact at none" in refused(run, "artifact.missing", 3)


@pytest.mark.parametrize("name", ["prefix.safetensors", "manifest.json"])
def test_one_flipped_bit_is_found(name: str, packed: Path) -> None:
    file = packed / name
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    run = foreword("inspect", packed, cwd=packed.parent)

    assert run.returncode == 3
    (line,) = run.stderr.splitlines()
    assert line.startswith("error[")
    assert "bug" not in line
    assert run.stdout == ""


def test_a_cut_tensor_file_and_a_stranger_in_the_directory_are_refused(packed: Path) -> None:
    file = packed / "prefix.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refused(foreword("inspect", packed, cwd=packed.parent), "artifact.truncated", 3)
    file.write_bytes(whole)
    (packed / "run.py").write_text("")
    refused(foreword("inspect", packed, cwd=packed.parent), "artifact.extra_file", 3)


def test_inspect_as_json_has_digest_and_manifest_and_needs_no_torch(packed: Path) -> None:
    run = foreword("inspect", packed, "--json", cwd=packed.parent, code=BLOCK + MAIN)

    assert (run.returncode, run.stderr) == (0, "")
    shown = json.loads(run.stdout)
    assert shown["digest"] == str(artifact().digest)
    assert shown["manifest"] == json.loads(artifact().manifest_bytes)


def test_inspect_shows_the_facts_on_one_line_each_without_torch(packed: Path) -> None:
    run = foreword("inspect", packed, cwd=packed.parent, code=BLOCK + MAIN)

    assert (run.returncode, run.stderr) == (0, "")
    facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in run.stdout.splitlines()}
    assert facts["name"] == "team/loud 1.2.3"
    assert facts["digest"] == str(artifact().digest)
    assert facts["prefix"] == "3 virtual tokens on decoder 1 layers, float32"
    assert facts["prompt"] == r"template: '{input}\n'"


def test_inspect_does_not_let_an_artifact_steer_the_terminal_or_add_lines(tmp_path: Path) -> None:
    base = BaseRef("x\ndigest      fake\x1b[2J[red]", Digest("ab" * 32), None, "a\x9bb", None)
    directory = write_artifact(artifact(base=base), tmp_path / "hostile")
    run = foreword("inspect", directory, cwd=tmp_path)

    assert run.returncode == 0
    assert "\x1b" not in run.stdout
    assert "\x9b" not in run.stdout
    assert sum(line.startswith("digest") for line in run.stdout.splitlines()) == 1
    assert r"x\ndigest      fake\x1b[2J[red]" in run.stdout


@pytest.mark.parametrize(
    "training",
    [
        {"tool": "another"},
        {"data": {}, "run": {}, "metrics": {}, "software": {}},
        {"data": 1, "run": 2, "metrics": 3, "software": 4},
        {
            "data": {},
            "run": {},
            "metrics": {"held_out_loss": "x", "frozen_loss": 1},
            "software": {},
        },
    ],
)
def test_inspect_shows_a_training_record_of_another_tool_as_it_is(
    training: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_artifact(artifact(training=training), tmp_path / "other")
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(directory)])

    assert stopped.value.code == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("training"))
    assert json.loads(line.removeprefix("training")) == training


def test_debug_shows_the_trace_and_still_the_line_and_the_code(tmp_path: Path) -> None:
    for arguments in (["--debug", "inspect", "none"], ["inspect", "none", "--debug"]):
        run = foreword(*arguments, cwd=tmp_path)
        assert run.returncode == 3
        assert run.stderr.startswith("Traceback")
        assert "open_artifact" in run.stderr
        assert run.stderr.splitlines()[-1].startswith("error[artifact.missing]: ")


def kinds(root: type[errors.ForewordError]) -> list[type[errors.ForewordError]]:
    return [root, *(kind for inner in root.__subclasses__() for kind in kinds(inner))]


def exit_with(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> int | str | None:
    def fail(directory: Path) -> NoReturn:
        raise error

    monkeypatch.setattr("foreword.artifact.open_artifact", fail)
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", "x", *arguments])
    return stopped.value.code


EXIT_CODES = {
    errors.ForewordError: 1,
    errors.UsageError: 2,
    errors.ConfigError: 2,
    errors.DataError: 2,
    errors.PromptTooLong: 2,
    errors.ArtifactError: 3,
    errors.CompatibilityError: 4,
    errors.UnsupportedModel: 4,
    errors.TrainingError: 5,
    errors.StorageError: 6,
}


def test_every_kind_of_error_has_its_documented_exit_code_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(kinds(errors.ForewordError)) == set(EXIT_CODES), "a kind nobody gave an exit code"
    for kind, code in EXIT_CODES.items():
        assert exit_with(kind("what [bold]came[/bold]\nand why"), monkeypatch) == code
        expected = f"error[{kind.default_code}]: what [bold]came[/bold] and why\n"
        assert capsys.readouterr() == ("", expected)


def test_an_unexpected_exception_is_called_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_with(RuntimeError("two\nlines"), monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error[bug]: RuntimeError: two lines (run with --debug")

    assert exit_with(RuntimeError("two"), monkeypatch, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130_and_says_that_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_with(KeyboardInterrupt(), monkeypatch) == 130
    text = capsys.readouterr().err
    assert text.startswith("stopped; ")
    assert "Traceback" not in text


def test_a_bad_row_of_questions_is_named_before_a_model_is_loaded(tmp_path: Path) -> None:
    rows = write(tmp_path / "ask.jsonl", {"input": "a"}, {"inptu": "b"})
    run = foreword("generate", "--base", "x", "--input", rows, cwd=tmp_path, code=BLOCK + MAIN)

    assert "ask.jsonl:2: no text in column 'input'" in refused(run, "data.bad_rows", 2)


def test_doctor_works_without_torch_and_says_what_to_install(tmp_path: Path) -> None:
    run = foreword("doctor", "--json", cwd=tmp_path, code=BLOCK + MAIN)

    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert {"foreword", "python", "torch", "peft", "home"} <= set(facts)
    assert "device" not in facts
