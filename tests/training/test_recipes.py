"""Recipes: every one parses, resolves and is written back the same; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from wise_edge.errors import MissingExtraError, UsageError

pytest.importorskip("wise_edge.training.wise", exc_type=MissingExtraError)

from wise_edge.training.recipe import load_recipe, recipe_names, save_config
from wise_edge.training.sft.config import SftConfig


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_parses_and_its_resolved_form_reads_back(name: str, tmp_path: Path) -> None:
    config = load_recipe(name)
    save_config(config, tmp_path / "recipe.yaml")
    assert load_recipe(str(tmp_path / "recipe.yaml")) == config


def test_overrides_reach_into_mappings_and_lists() -> None:
    config = load_recipe("embedded-policy", ["optimizer.muon_lr=0.5", "phases.0.steps=7", "seed=3"])
    assert isinstance(config, SftConfig)
    assert (config.optimizer.muon_lr, config.phases[0].steps, config.seed) == (0.5, 7, 3)


def test_whole_number_is_read_as_a_float_where_one_is_wanted() -> None:
    config = load_recipe("embedded-policy", ["digit_weight=1"])
    assert isinstance(config, SftConfig)
    assert isinstance(config.digit_weight, float)


def test_number_with_an_exponent_and_no_dot_is_a_number() -> None:
    config = load_recipe("embedded-policy", ["optimizer.muon_lr=1e-4"])
    assert isinstance(config, SftConfig)
    assert config.optimizer.muon_lr == 1e-4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.muon_rl=1", "optimizer.muon_rl: unknown key; did you mean 'muon_lr'"),
        ("batch_size=many", "batch_size: 'many' is not int"),
        ("batch_size=1.5", "batch_size: 1.5 is not int"),
        ("bfloat16=1", "bfloat16: 1 is not bool"),
        ("phases.0.steps=0", "phases.0.steps: must be from 1 to"),
        ("phases.9.steps=1", "9 must be an index from 0 to"),
        ("phases.1.mixture.wiser=1", "phases.1.mixture.wiser"),
        ("phases=[]", "phases: must have 1 to 1,000 entries, has 0"),
        ("phases=[{name: a}]", "phases.0.steps: missing"),
        ("model=3", "model: 3 is not a mapping"),
        ("model.mrope_section=[1, 2]", "model.mrope_section: needs 3 values, has 2"),
        ("seed.inner=3", "seed is a value and has no keys"),
        ("stage=ppo", "stage: 'ppo' is not a training stage"),
        ("seed", "write KEY=VALUE"),
        ("seed=[", "the value is not YAML"),
    ],
)
def test_mistake_in_an_override_is_named(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe("embedded-policy", ["seed=1", override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("- 1", "must be a mapping"), ("a: [", "not YAML"), ("seed: 1", "stage: None")]
)
def test_broken_recipe_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["nothing", "nothing.yaml"])
def test_missing_recipe_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        load_recipe(name)
