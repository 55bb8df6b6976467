"""Where things lie when the user does not say: every verb of one recipe finds what the verb before it left."""

from __future__ import annotations

from pathlib import Path

from robo_rlft.training.config import Config

ROOT = Path("runs")
SCRATCH = "none"
"""`run.checkpoint=none`: start from random weights."""


def home(config: Config) -> Path:
    """Folder of everything a recipe makes: `runs/<method>/<task>`, or `runs/<environment>` without a recipe."""
    return ROOT / (config.recipe or file_name(config.env.id))


def file_name(env_id: str) -> str:
    """An environment's name as that of a file: `libero:libero_goal/3` gives `libero-libero_goal-3`."""
    return env_id.replace(":", "-").replace("/", "-")


def data_path(config: Config) -> Path:
    """The data set: `data.path`, or `runs/data/<environment>.zarr`, which the recipes of one task share."""
    return Path(config.data.path) if config.data.path else ROOT / "data" / f"{file_name(config.env.id)}.zarr"


def run_path(config: Config, verb: str) -> Path:
    """The folder of a run: `run.dir`, or `<verb>-seed<seed>` in the recipe's folder."""
    return Path(config.run.dir) if config.run.dir else home(config) / f"{verb}-seed{config.seed}"


def source_path(config: Config) -> Path:
    """The checkpoint fine-tuning starts from: `run.checkpoint`, or the recipe's pre-training run of the same seed."""
    return Path(config.run.checkpoint) if config.run.checkpoint else _earlier(config, "pretrain")


def acting_path(config: Config) -> Path:
    """The run that acts, in an evaluation or a bundle: `run.checkpoint`, or the recipe's fine-tuning run."""
    return Path(config.run.checkpoint or config.run.dir or _earlier(config, "finetune"))


def _earlier(config: Config, verb: str) -> Path:
    """A run that was made before: this recipe's own, or that of the recipe it builds on where it has none."""
    own, other = (p / f"{verb}-seed{config.seed}" for p in (home(config), ROOT / config.run.builds_on))
    return other if config.run.builds_on and not own.exists() else own


def run_folder(path: Path) -> Path:
    """The run that a run folder, a checkpoint or a file in one belongs to; the path itself if it belongs to none."""
    return next((f for f in (path, *path.parents) if (f / "config.yaml").is_file()), path)
