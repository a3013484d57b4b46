"""Settings: an unknown key never passes silently, and every error says where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.config import foreword_home, known_keys, load_settings
from foreword.errors import ConfigError
from foreword.tuning.recipe import Recipe


def fails(*overrides: str, text: str | None = None, tmp_path: Path | None = None) -> str:
    file = None
    if text is not None and tmp_path is not None:
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(Recipe, file, overrides)
    return str(caught.value)


def test_overrides_win_over_the_file_in_order(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("seed: 3\ntrain:\n  steps: 7\n  lr: 1e-2\n")
    recipe = load_settings(Recipe, file, ["train.steps=8", "train.steps=9", "data.limit=5"])
    assert (recipe.seed, recipe.train.steps, recipe.train.lr, recipe.data.limit) == (3, 9, 0.01, 5)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.stepz=3", "train.steps"),
        ("trian.steps=3", "train.steps"),
        ("steps=3", "train.steps"),
        ("prefix.lenght=3", "prefix.length"),
        ("data.limits=3", "data.limit"),
    ],
)
def test_an_unknown_setting_names_its_nearest_neighbour(override: str, hint: str) -> None:
    message = fails(override)
    assert f"did you mean {hint!r}?" in message
    assert override in message


def test_an_unknown_setting_in_a_file_names_the_file(tmp_path: Path) -> None:
    message = fails(text="prefix:\n  lenght: 3\n", tmp_path=tmp_path)
    assert "recipe.yaml" in message
    assert "prefix.length" in message


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.steps=many", "train.steps"),
        ("train.steps=0", "greater than or equal to 1"),
        ("train.schedule=wavy", "train.schedule"),
        ("prefix.sites=[decoder, nose]", "prefix.sites"),
        ("train=5", "train"),
        ("train.lr", "key=value"),
        ("=5", "key=value"),
        ("train.steps=[1", "not readable"),
        ("seed=3000000000", "seed"),
    ],
)
def test_a_value_that_does_not_fit_is_named(override: str, part: str) -> None:
    assert part in fails(override)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "got a list"),
        ("seed: 1\nseed: 2\n", "given twice"),
        ("seed: !!python/object/apply:os.system [true]\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(text: str, part: str, tmp_path: Path) -> None:
    assert part in fails(text=text, tmp_path=tmp_path)


def test_an_impossible_date_is_an_error_of_the_user(tmp_path: Path) -> None:
    assert "not valid YAML" in fails(text="seed: 2026-13-01\n", tmp_path=tmp_path)
    assert "not readable" in fails("train.steps=2026-13-01")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(Recipe, tmp_path / "none.yaml")


def test_the_documented_keys_exist() -> None:
    wanted = {
        "data.limit", "data.template", "data.eval_fraction", "prefix.length", "prefix.init",
        "prefix.encoder", "train.steps", "train.epochs", "train.lr", "train.batch_tokens", "seed",
    }  # fmt: skip
    assert wanted <= set(known_keys(Recipe))


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    assert foreword_home() == tmp_path
    monkeypatch.delenv("FOREWORD_HOME")
    assert foreword_home() == Path.home() / ".cache" / "foreword"
