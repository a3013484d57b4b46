"""Settings: every mistake in a file or a flag is one `ConfigError` that names the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from foreword.config import foreword_home, known_keys, load_settings
from foreword.errors import ConfigError
from foreword.tuning.recipe import Recipe


def load(text: str, tmp_path: Path, *overrides: str) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_settings(Recipe, file, overrides)


def refusal(text: str, tmp_path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, *overrides)
    return caught.value


def test_no_file_and_no_flags_are_the_defaults() -> None:
    assert load_settings(Recipe) == Recipe()


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_the_defaults(text: str, tmp_path: Path) -> None:
    assert load(text, tmp_path) == Recipe()


def test_a_file_sets_nested_values_and_leaves_the_rest(tmp_path: Path) -> None:
    recipe = load("seed: 7\ntrain:\n  steps: 5\n  lr: 1e-3\n", tmp_path)

    assert (recipe.seed, recipe.train.steps, recipe.train.lr) == (7, 5, 1e-3)
    assert recipe.prefix == Recipe().prefix


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("sede", "seed"),
        ("nam", "name"),
        ("train.step", "train.steps"),
        ("data.tempalte", "data.template"),
        ("steps", "train.steps"),
        ("prefix.lr", "train.lr"),
        ("train.length", "prefix.length"),
        ("trian.steps", "train.steps"),
        ("train.steps.most", "train.steps"),
    ],
)
def test_an_unknown_key_names_itself_its_origin_and_its_nearest_neighbour(
    key: str, nearest: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as from_flag:
        load_settings(Recipe, None, [f"{key}=1"])
    *sections, leaf = key.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(sections)]
    text = "\n".join([*lines, f"{'  ' * len(sections)}{leaf}: 1"])
    from_file = refusal(text, tmp_path)

    for error, origin in ((from_flag.value, f"--set {key}=1"), (from_file, "recipe.yaml")):
        assert error.code == "config.unknown_key"
        assert repr(key) in str(error)
        assert origin in str(error)
        assert f"did you mean {nearest!r}?" in str(error)


def test_an_unknown_key_that_is_near_nothing_lists_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"known are name, version, seed, data\.input"):
        load_settings(Recipe, None, ["qqqqqqqq=1"])


def test_a_key_that_is_not_text_is_unknown_and_no_crash(tmp_path: Path) -> None:
    assert refusal("7: x\n", tmp_path).code == "config.unknown_key"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.steps=many", "valid integer"),
        ("train.steps=0", "greater than or equal to 1"),
        ("train.steps=1.5", "valid integer"),
        ("train.lr=-1", "greater than 0"),
        ("train.lr=nan", "finite"),
        ("train.epochs=.inf", "finite"),
        ("train.clip=.inf", "finite"),
        ("train.weight_decay=.inf", "finite"),
        ("train.schedule=square", "'cosine', 'linear' or 'constant'"),
        ("data.bad_rows=ignore", "'refuse' or 'skip'"),
        ("data.eval_fraction=1", "less than 1"),
        ("prefix.sites=[middle]", "'decoder'"),
        ("prefix.layers=[a]", "valid integer"),
        ("name=[a, b]", "valid string"),
        ("seed=-1", "greater than or equal to 0"),
        ("train=5", "valid dictionary"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_origin(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Recipe, None, [override])

    assert caught.value.code == "config.value"
    assert says in str(caught.value)
    assert str(caught.value).startswith(override.split("=")[0])


def test_a_wrong_value_in_a_file_names_the_file(tmp_path: Path) -> None:
    error = refusal("train:\n  steps: soon\n", tmp_path)

    assert error.code == "config.value"
    assert "train.steps (" in str(error)
    assert "recipe.yaml" in str(error)
    assert "'soon'" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "train: [1\n",
        "a: b: c\n",
        "\tseed: 1\n",
        "- seed\n",
        "just text\n",
        "? [1, 2]\n: x\n",
        "seed: 1\n---\nseed: 2\n",
    ],
)
def test_what_is_not_a_mapping_in_yaml_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    error = refusal(text, tmp_path)

    assert error.code == "config.yaml"
    assert "recipe.yaml" in str(error)
    assert "\n" not in str(error)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"name: caf\xe9\n")

    with pytest.raises(ConfigError) as caught:
        load_settings(Recipe, file)
    assert caught.value.code == "config.yaml"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read") as caught:
        load_settings(Recipe, tmp_path / "none.yaml")
    assert caught.value.code == "config.file"


@pytest.mark.parametrize(
    "text", ["seed: 1\nseed: 2\n", "train:\n  steps: 1\n  lr: 1\n  steps: 2\n"]
)
def test_a_key_given_twice_is_refused_instead_of_the_last_one_winning(
    text: str, tmp_path: Path
) -> None:
    error = refusal(text, tmp_path)

    assert error.code == "config.yaml"
    assert "is given twice" in str(error)
    assert "line" in str(error)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.system ['touch {}']",
        "!!python/object:foreword.tuning.recipe.Recipe {{}}",
        "!!python/name:os.system",
    ],
)
def test_yaml_that_asks_for_python_objects_is_refused_and_runs_nothing(
    tag: str, tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    text = tag.format(touched)

    assert refusal(f"name: {text}\n", tmp_path).code == "config.yaml"
    with pytest.raises(ConfigError) as caught:
        load_settings(Recipe, None, [f"name={text}"])
    assert caught.value.code == "config.override"
    assert not touched.exists()


def test_flags_win_over_the_file_and_the_last_flag_wins(tmp_path: Path) -> None:
    recipe = load(
        "seed: 1\ntrain:\n  steps: 1\n  clip: 3\n",
        tmp_path,
        "train.steps=2",
        "train.steps=3",
        "prefix.length=9",
    )

    assert (recipe.seed, recipe.train.steps, recipe.train.clip) == (1, 3, 3.0)
    assert recipe.prefix.length == 9


def test_an_error_after_an_override_blames_the_flag_and_not_the_file(tmp_path: Path) -> None:
    error = refusal("train:\n  steps: 5\n", tmp_path, "train.steps=-5")

    assert "--set train.steps=-5" in str(error)
    assert "recipe.yaml" not in str(error)


@pytest.mark.parametrize("override", ["train.steps", "=5", " =5", ""])
def test_an_override_without_key_or_value_shows_the_form(override: str) -> None:
    with pytest.raises(ConfigError, match=r"--set takes key=value") as caught:
        load_settings(Recipe, None, [override])
    assert caught.value.code == "config.override"


def test_an_override_value_may_hold_an_equals_sign() -> None:
    assert load_settings(Recipe, None, ["data.template='a={input}'"]).data.template == "a={input}"


def test_a_section_set_to_a_scalar_cannot_be_opened_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train already has the value 5") as caught:
        load_settings(Recipe, None, ["train=5", "train.steps=3"])
    assert caught.value.code == "config.override"
    assert refusal("train: 5\n", tmp_path, "train.steps=3").code == "config.override"


def test_known_keys_are_the_leaves_of_every_section() -> None:
    keys = known_keys(Recipe)

    assert {"name", "seed", "data.input", "prefix.length", "train.batch_tokens"} <= set(keys)
    assert not {"data", "prefix", "train"} & set(keys)
    assert len(keys) == len(set(keys))
    for key in keys:
        value: object = Recipe()
        for part in key.split("."):
            value = getattr(value, part)


def test_known_keys_look_into_an_optional_section() -> None:
    class Inner(BaseModel):
        depth: int = 1

    class Outer(BaseModel):
        inner: Inner | None = None

    assert known_keys(Outer) == ["inner.depth"]


def test_settings_cannot_be_changed_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(Recipe).train.steps = 3  # type: ignore[misc]


def test_home_follows_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    assert foreword_home() == tmp_path
    monkeypatch.setenv("FOREWORD_HOME", "~/x")
    assert foreword_home() == Path.home() / "x"
    monkeypatch.delenv("FOREWORD_HOME")
    assert foreword_home() == Path.home() / ".cache" / "foreword"
