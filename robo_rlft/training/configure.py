"""From the words on the command line to a checked `Config`: defaults < recipe < overrides.

Hydra composes the YAML files over the dataclass schema; what Hydra and OmegaConf report is turned into one sentence
that names the nearest right key, the type that was expected, or the recipe that was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.training.config import Config
from robo_rlft.training.rules import validate
from robo_rlft.training.settings import groups, is_open, settings

__all__ = ["compose", "from_yaml", "load", "recipes", "to_yaml", "validate"]

SCHEMA = "schema"
"""Name under which config.yaml refers to the dataclass tree."""


def compose(
    overrides: Sequence[str] = (), *, verb: str = "", config_dir: Path | str | None = None, base: Path | None = None
) -> Config:
    """The configuration that a command line means.

    Args:
        overrides: `key=value` words in Hydra's grammar, `recipe=<method>/<task>` among them.
        verb: the verb that will read it; decides which rules between settings are checked. Empty checks those that
            hold for every verb.
        config_dir: a user's own folder with `recipe/<method>/<task>.yaml` files, found beside the packaged ones.
        base: the config.yaml of an earlier run, whose settings replace the defaults.

    Raises:
        ConfigError: an override, a recipe or a combination of settings that cannot be meant.
    """
    folder = _existing_folder(config_dir)
    parsed = [_parse(word) for word in overrides]
    for override in parsed:
        _check_override(override, folder)
    recipe = next((str(o.value() or "") for o in parsed if o.key_or_group == "recipe"), "")
    if recipe and base:
        raise ConfigError(
            f"recipe={recipe} cannot replace the settings of {base.parent}: leave it out, or start a new run"
        )
    words = [_spelt(o, folder) for o in parsed if o.key_or_group != "recipe" or recipe]
    config = _compose(words, folder, load(base) if base else Config())
    config.recipe = recipe or config.recipe
    validate(config, verb)
    return config


def recipes(config_dir: Path | str | None = None) -> dict[str, str]:
    """Every recipe by name with its first comment line; files whose name starts with `_` are parts of recipes."""
    found: dict[str, str] = {}
    for root in _roots(_existing_folder(config_dir)):
        for path in sorted((root / "recipe").rglob("*.yaml")):
            if not path.name.startswith("_"):
                found[path.relative_to(root / "recipe").with_suffix("").as_posix()] = _headline(path)
    return found


def to_yaml(config: Config) -> str:
    """The whole tree as YAML, for the run folder."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str, source: str) -> Config:
    """Inverse of `to_yaml`; keys that are missing keep their defaults.

    Args:
        text: YAML.
        source: how to call it in an error.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), _renamed(OmegaConf.create(text)))
        return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{source}: {_explain(error)}") from error
    except YAMLError as error:
        raise ConfigError(f"{source} is no YAML: {' '.join(str(error).split())}") from error


def load(path: Path) -> Config:
    """Read the config.yaml of a run."""
    if not path.is_file():
        raise ConfigError(f"no configuration at {path}: expected the config.yaml that a run leaves in its folder")
    return from_yaml(path.read_text(), str(path))


MOVED = {"env.images.randomise": "env.randomise"}
"""Settings that earlier versions wrote elsewhere."""


def _renamed(tree: Any) -> Any:
    """The configuration of an earlier version with every setting where it is now."""
    for old, new in MOVED.items():
        parent, _, name = old.rpartition(".")
        holder = OmegaConf.select(tree, parent)
        if isinstance(holder, DictConfig) and name in holder:
            OmegaConf.update(tree, new, holder.pop(name))
    return tree


def _compose(words: Sequence[str], folder: Path | None, defaults: Config) -> Config:
    ConfigStore.instance().store(SCHEMA, defaults)
    search = [f"hydra.searchpath=['file://{folder}']"] if folder else []
    try:
        with as_file(_packaged()) as root, initialize_config_dir(str(root), version_base="1.3"):
            tree = hydra_compose("config", [*words, *search])
        return cast(Config, OmegaConf.to_object(_resolved(tree)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    except YAMLError as error:
        raise ConfigError(f"a recipe is no YAML: {' '.join(str(error).split())}") from error


def _resolved(tree: DictConfig) -> DictConfig:
    OmegaConf.resolve(tree)
    return tree


def _packaged() -> Path:
    return cast(Path, files("robo_rlft") / "configs")


def _roots(folder: Path | None) -> Iterator[Path]:
    with as_file(_packaged()) as root:
        yield root
    if folder:
        yield folder


def _existing_folder(config_dir: Path | str | None) -> Path | None:
    if config_dir is None:
        return None
    folder = Path(config_dir).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder: give one that holds recipe/<method>/<task>.yaml")
    return folder


def _headline(path: Path) -> str:
    comments = (line.lstrip("# ").strip() for line in path.read_text().splitlines() if line.startswith("#"))
    return next((line for line in comments if not line.startswith("@package")), "")


def _parse(word: str) -> Override:
    if "=" not in word and not word.startswith("~"):
        raise ConfigError(f"'{word}' is not a setting: write key=value, e.g. seed=1 (robo-rlft list settings)")
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(_unreadable(word)) from error


def _unreadable(word: str) -> str:
    key, _, value = word.partition("=")
    return f"cannot read the value of {word!r}: put quotes around it, e.g. \"{key}='{value}'\""


def _check_override(override: Override, folder: Path | None) -> None:
    key = override.key_or_group
    if override.is_delete():
        raise ConfigError(f"'~{key}' cannot be removed: give it another value, {key}=...")
    if override.is_sweep_override():
        raise ConfigError(f"{key} was given several values: give one, and start the command once for each")
    if key == "recipe":
        _check_recipe(override.value(), folder)
    elif key not in settings() and key not in groups() and not is_open(key) and not _is_users_group(key, folder):
        raise ConfigError(_unknown_key(key))


def _check_recipe(name: Any, folder: Path | None) -> None:
    known = recipes(folder)
    if name is not None and str(name) not in known:
        raise ConfigError(unknown_name("recipe", str(name), known))


def _is_users_group(key: str, folder: Path | None) -> bool:
    return folder is not None and key != "recipe" and (folder / key).is_dir()


def _unknown_key(key: str) -> str:
    """Names the nearest keys: the same name elsewhere (`gamma` -> `ppo.gamma`), a near one beside it, any near one."""
    parent, _, leaf = key.rpartition(".")
    elsewhere = [k for k in settings() if k.rpartition(".")[2] == leaf]
    siblings = {k.rpartition(".")[2]: k for k in settings() if k.rpartition(".")[0] == parent}
    beside = [siblings[name] for name in get_close_matches(leaf, siblings, n=2)]
    near = elsewhere or beside or get_close_matches(key, settings(), n=2)
    hint = f"did you mean {', '.join(near)}" if near else "see robo-rlft list settings"
    return f"unknown setting '{key}': {hint}"


def _spelt(override: Override, folder: Path | None) -> str:
    """The override as Hydra wants it; users need no `+` for their own groups and for names in a free dictionary."""
    key, word = override.key_or_group, cast(str, override.input_line).lstrip("+")
    if is_open(f"{key}.") or is_open(key):
        return f"++{word}"
    return f"+{word}" if _is_users_group(key, folder) else word


def _explain(error: BaseException) -> str:
    """One sentence for what Hydra or OmegaConf found, in an override or in a file."""
    text = next((str(e) for e in _causes(error) if "full_key:" in str(e)), "")
    place = re.search(r"^In '(.*?)':", text)
    found = re.search(r"([^\n]*)\n\s*full_key: (\S*)", text)
    if found is None:
        return " ".join(str(error).split("\n\n")[0].split())
    reason, key = found.groups()
    name = key.split("[")[0]
    if place and name == "recipe":
        return f"in {place.group(1)}.yaml: begin the file with the line '# @package _global_'"
    known = name in settings() or name in groups()
    sentence = f"{key}: {_expected(name)}; {_given(reason)}" if known else _unknown_key(key)
    return f"in {place.group(1)}.yaml: {sentence}" if place else sentence


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _expected(name: str) -> str:
    if name in groups():
        return f"expected settings below it ({name}.<name>=value)"
    setting = settings()[name]
    example = str(setting.default).replace(" ", "").lower()
    return f"expected {_plain_type(setting.type)}, e.g. {name}={example}"


def _plain_type(kind: str) -> str:
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    return words.get(kind, kind)


def _given(reason: str) -> str:
    """What was given, out of OmegaConf's reason."""
    found = re.match(r"Value (.*) of type", reason) or re.search(r"\. value: (.*)$", reason)
    if "not Optional" in reason:
        return "null was given"
    return f"{found.group(1)} was given" if found else reason
