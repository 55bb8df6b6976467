"""Settings: what a command line means, and the sentence for what it cannot mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from robo_rlft.errors import ConfigError
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose, from_yaml, load, recipes, to_yaml
from robo_rlft.training.rules import CHOICES, RANGES, Interval, validate, value_at
from robo_rlft.training.settings import groups, is_open, settings, under

UNBOUNDED = {"run.stop_return", "ppo.entry_bounds"}
"""Numbers that may take any value."""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder with one good and one misspelt recipe and a group."""
    (tmp_path / "recipe/mine").mkdir(parents=True)
    (tmp_path / "size").mkdir()
    head = "# @package _global_\n# My hopper.\ndefaults:\n  - /recipe/reinflow/hopper\n  - _self_\n"
    (tmp_path / "recipe/mine/hopper.yaml").write_text(f"{head}ppo: {{iterations: 7}}\n")
    (tmp_path / "recipe/mine/wrong.yaml").write_text(f"{head}ppo: {{iteratons: 7}}\n")
    (tmp_path / "recipe/mine/text.yaml").write_text(f"{head}ppo: {{iterations: many}}\n")
    (tmp_path / "recipe/mine/_part.yaml").write_text(head)
    (tmp_path / "size/big.yaml").write_text("# @package policy.network\nhidden: [1024, 1024]\n")
    return tmp_path


def test_nothing_given_means_the_defaults() -> None:
    assert compose() == Config()


def test_precedence_is_defaults_then_recipe_then_command_line() -> None:
    config = compose(["recipe=reinflow/ant", "ppo.iterations=3"])
    assert config.recipe == "reinflow/ant"
    assert config.env.id == "Ant"
    assert config.policy.chain.std_max == 0.16  # ReinFlow's bounds for Ant, over the .24 of the default
    assert config.ppo.iterations == 3


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_composes_names_an_environment_and_says_what_it_is(name: str) -> None:
    from robo_rlft.envs import find

    config = compose([f"recipe={name}"])
    validate(config, "pretrain")
    if not (name.startswith("bc/") or name.endswith("_pixels")):  # those only clone
        validate(config, "finetune")
    assert find(config.env.id).id == config.env.id
    assert len(recipes()[name]) > 20


def test_published_discounts_are_per_control_step() -> None:
    """ReinFlow discounts .99 per chunk; gamma is per control step, so its H-th power is the published value."""
    for task in ("hopper", "walker2d", "halfcheetah", "ant", "humanoid"):
        config = compose([f"recipe=reinflow/{task}"])
        assert config.ppo.gamma**config.policy.execute == pytest.approx(0.99, abs=5e-4)


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("ppo.iteratons=3", "ppo.iterations"),
        ("gamma=.9", "ppo.gamma"),
        ("policy.std_max=.2", "policy.chain.std_max"),
        ("+env.parms.clearance=1", "env.params"),
        ("recipe=reinflow/hoper", "reinflow/hopper"),
        ("ppo.gamma=high", "a number"),
        ("ppo.iterations=2.5", "a whole number"),
        ("run.tensorboard=maybe", "true or false"),
        ("ppo.iterations=null", "null was given"),
        ("policy.network.hidden=[wide]", "list[int]"),
        ("ppo=3", "ppo.<name>=value"),
        ("~ppo", "cannot be removed"),
        ("seed=1,2", "several values"),
        ("data.path=a b=c", "quotes"),
        ("ppo.clip=[", "quotes"),
        ("hopper", "key=value"),
        ("something.else=1", "robo-rlft list settings"),
        ("policy.network.name=unet", "unet1d"),
    ],
)
def test_a_wrong_word_is_answered_by_one_sentence_that_names_the_right_one(word: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    message = str(caught.value)
    assert named in message
    assert "\n" not in message
    assert word.lstrip("+~").split("=")[0] in message


@pytest.mark.parametrize(
    ("words", "verb", "named"),
    [
        (["policy.execute=9"], "", "policy.chunk=4"),
        (["ppo.gamma=1.01"], "", "(0, 1]"),
        (["ppo.gamma=0"], "", "(0, 1]"),
        (["ppo.minibatch=0"], "", "at least 1"),
        (["bc.ema_decay=1"], "", "[0, 1)"),
        (["policy.network.hidden=[512,0]"], "", "at least 1"),
        (["policy.chain.std_min=.3"], "", "std_max"),
        (["policy.obs_keys=[]"], "", "at least one"),
        (["policy.network.name=transformer", "policy.network.heads=3"], "", "multiple"),
        (["ppo.iterations=5", "run.eval_every=10"], "finetune", "run.eval_every=10"),
        (["env.num_envs=40", "ppo.rollout=500", "ppo.minibatch=20001"], "finetune", "20000 rows"),
        (["policy.chain.name=reinflow", "ppo.step_minibatch=true"], "finetune", "use ppo.mdp=steps"),
        (["recipe=dppo/hopper", "ppo.step_minibatch=true", "ppo.minibatch=40961"], "finetune", "40960 rows"),
        (["recipe=bc/hopper"], "finetune", "no likelihood"),
        (["bc.steps=50"], "pretrain", "bc.warmup=100"),
        (["bc.lr_final=1"], "pretrain", "bc.lr_final"),
    ],
)
def test_values_that_contradict_each_other_are_found_before_the_first_step(
    words: list[str], verb: str, named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words, verb=verb)
    assert named in str(caught.value)


def test_a_schedule_is_only_checked_for_its_own_verb() -> None:
    assert compose(["recipe=bc/hopper", "ppo.iterations=5"], verb="pretrain").ppo.iterations == 5


def test_names_of_the_task_need_no_plus() -> None:
    words = ["env.params.clearance=0.001", "+env.params.hole.angle=15", "++env.params.name=peg"]
    assert compose(words).env.params == {"clearance": 0.001, "hole": {"angle": 15}, "name": "peg"}
    assert compose(["env.params={clearance: 0.002}"]).env.params == {"clearance": 0.002}


def test_recipes_of_a_users_own_folder(own: Path) -> None:
    assert recipes(own)["mine/hopper"] == "My hopper."
    assert "mine/_part" not in recipes(own)
    config = compose(["recipe=mine/hopper"], config_dir=own)
    assert (config.recipe, config.env.id, config.ppo.iterations) == ("mine/hopper", "Hopper", 7)


def test_a_wrong_line_in_a_users_recipe_is_named_with_its_file(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe/mine/wrong\.yaml: .*ppo\.iteratons.*ppo\.iterations"):
        compose(["recipe=mine/wrong"], config_dir=own)
    with pytest.raises(ConfigError, match=r"recipe/mine/text\.yaml: ppo\.iterations: .*whole number.*'many'"):
        compose(["recipe=mine/text"], config_dir=own)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: 1\n", "# @package _global_"),
        ("# @package _global_\nseed: [\n", "broken.yaml"),
        ("# @package _global_\ndefaults: [/recipe/nope]\n", "recipe/nope"),
        ("# @package _global_\nseed: ${env.nope}\n", "env.nope"),
    ],
)
def test_a_broken_recipe_is_answered_by_one_sentence(own: Path, text: str, named: str) -> None:
    (own / "recipe/mine/broken.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose(["recipe=mine/broken"], config_dir=own)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_groups_of_a_users_own_folder(own: Path) -> None:
    assert compose(["size=big"], config_dir=own).policy.network.hidden == [1024, 1024]


def test_a_missing_folder_of_recipes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        compose(config_dir=tmp_path / "nowhere")


@settings_of_hypothesis(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**31 - 1),
    path=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    gamma=st.floats(1e-6, 1.0),
    hidden=st.lists(st.integers(1, 4096), max_size=4),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab '\"\\,=[]{}:$#", max_size=6),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_settings_survive_yaml_and_a_run_that_builds_on_them(
    tmp_path_factory: pytest.TempPathFactory, seed: int, path: str, gamma: float, hidden: list[int], value: object
) -> None:
    config = Config(seed=seed)
    config.data.path, config.ppo.gamma, config.policy.network.hidden = path.replace("${", ""), gamma, hidden
    config.env.params = {"value": value}
    assert from_yaml(to_yaml(config), "test") == config
    file = tmp_path_factory.mktemp("run") / "config.yaml"
    file.write_text(to_yaml(config))
    changed = compose(["bc.steps=4321"], base=file)
    config.bc.steps = 4321
    assert changed == config


def test_a_run_keeps_its_own_settings_under_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(compose(["recipe=reinflow/ant", "env.params.x=1", "seed=5"])))
    config = compose(["evaluate.episodes=3"], base=file)
    assert (config.recipe, config.seed, config.env.id, config.evaluate.episodes) == ("reinflow/ant", 5, "Ant", 3)
    with pytest.raises(ConfigError, match="leave it out"):
        compose(["recipe=reinflow/hopper"], base=file)


def test_a_file_with_a_foreign_key_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("ppo: {iteratons: 3}")
    with pytest.raises(ConfigError, match=r"config\.yaml: .*ppo\.iterations"):
        load(file)
    with pytest.raises(ConfigError, match="no configuration"):
        load(tmp_path / "missing.yaml")


def test_settings_that_have_moved_are_found_in_older_runs(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("env: {images: {cameras: [wrist], randomise: {colour: 0.3, light: 0.5, camera: 0.05}}}")
    env = load(file).env
    assert (env.images.cameras, env.randomise.colour, env.randomise.camera) == (["wrist"], 0.3, 0.05)
    assert load(file).env.randomise.mass == [1.0, 1.0]
    with pytest.raises(ConfigError, match=r"did you mean env\.randomise\.colour"):
        compose(["env.images.randomise.colour=0.3"])


def test_ranges_of_randomisation_are_checked() -> None:
    assert compose(["env.randomise.friction=[0.5,1.25]"]).env.randomise.friction == [0.5, 1.25]
    with pytest.raises(ConfigError, match=r"env\.randomise\.mass is \[1\.2, 0\.8\]: give \[low, high\]"):
        compose(["env.randomise.mass=[1.2,0.8]"])
    with pytest.raises(ConfigError, match=r"env\.randomise\.noise\.rad_s"):
        compose(["env.randomise.noise.rad_s=-1"])


def test_every_setting_is_explained() -> None:
    assert [s.key for s in settings().values() if len(s.doc) < 10] == []


def test_every_number_has_a_range_and_every_rule_a_setting() -> None:
    numbers = {s.key for s in settings().values() if s.type in ("int", "float", "list[int]", "list[float]")}
    assert numbers - UNBOUNDED == set(RANGES), "add new numbers to robo_rlft.training.rules.RANGES"
    assert set(CHOICES) <= set(settings())


def test_choices_are_those_that_can_be_built() -> None:
    from robo_rlft.policies.chains import CHAINS
    from robo_rlft.policies.chains.base import PRECISIONS
    from robo_rlft.policies.networks import NETWORKS
    from robo_rlft.training.precision import SETTINGS

    assert set(CHOICES["policy.network.name"]) == set(NETWORKS)
    assert set(CHOICES["policy.chain.name"]) == set(CHAINS)
    assert set(CHOICES["policy.chain.precision"]) == set(PRECISIONS)
    assert set(CHOICES["matmul"]) == set(SETTINGS)


@given(st.floats(allow_nan=False), st.floats(-5, 5), st.floats(-5, 5), st.booleans(), st.booleans())
def test_interval_against_its_definition(x: float, low: float, high: float, open_low: bool, open_high: bool) -> None:
    inside = low <= x <= high and not (open_low and x == low) and not (open_high and x == high)
    assert (x in Interval(low, high, open_low, open_high)) == inside


def test_nan_lies_in_no_interval() -> None:
    assert float("nan") not in Interval()


def test_the_table_of_settings_follows_the_tree() -> None:
    assert value_at(Config(), "policy.chain.steps") == settings()["policy.chain.steps"].default == 4
    assert "policy.network" in groups()
    assert "ppo.gamma" not in groups()
    assert {s.key for s in under("policy.chain")} < {s.key for s in under("policy")}
    assert is_open("env.params.anything")
    assert not is_open("env.id")
