from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import robo_rlft.training.files as files
from robo_rlft.errors import RunError
from robo_rlft.training.config import Config
from robo_rlft.training.run import Run, read_config


@pytest.fixture
def config() -> Config:
    config = Config()
    config.run.tensorboard = False
    return config


def open_run(path: Path, config: Any, verb: str = "finetune") -> Run:
    return Run.open(path, config, verb=verb)


def test_a_run_writes_down_how_it_was_made(tmp_path: Path, config: Config) -> None:
    with open_run(tmp_path / "deep" / "run", config) as run:
        assert not run.resumed
        assert not run.finished
        run.log("one [bold] line")
    made = yaml.safe_load((run.path / "config.yaml").read_text())
    assert made == read_config(run.path) == run.config
    assert made["policy"]["network"]["hidden"] == [512, 512, 512]
    versions = json.loads((run.path / "versions.json").read_text())
    assert versions["verb"] == "finetune"
    assert {"python", "torch", "mujoco", "numpy", "gymnasium", "robo-rlft"} <= set(versions["versions"])
    assert versions["machine"]["cpu"]
    assert (run.path / "log.txt").read_text().endswith("one [bold] line\n")


def test_a_run_of_an_older_version_continues_where_new_settings_have_their_defaults(
    tmp_path: Path, config: Config
) -> None:
    with open_run(tmp_path, config):
        pass
    older = read_config(tmp_path)
    del older["ppo"]["objective"], older["residual"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older))
    with open_run(tmp_path, config) as run:
        assert run.resumed
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older))
    config.ppo.objective = "awr"
    with pytest.raises(RunError, match=r"ppo.objective=surrogate, now ppo.objective=awr"), open_run(tmp_path, config):
        pass


def test_a_run_continues_with_the_same_settings_or_other_limits(tmp_path: Path, config: Config) -> None:
    with open_run(tmp_path, config) as run:
        run.finish({"env_steps": 10})
        assert run.finished
    with open_run(tmp_path, config) as run:
        assert run.resumed
        assert run.finished
    config.ppo.iterations, config.run.wall_seconds = 500, 60.0
    with open_run(tmp_path, config) as run:
        assert run.resumed
        assert not run.finished
    assert "ppo.iterations=500 (was 100)" in (tmp_path / "log.txt").read_text()
    assert read_config(tmp_path)["ppo"]["iterations"] == 500


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: setattr(c.ppo, "clip", 0.5), r"ppo\.clip=0\.01, now ppo\.clip=0\.5"),
        (lambda c: setattr(c, "seed", 3), r"seed=0, now seed=3"),
        (
            lambda c: c.env.params.update(clearance=2),
            r"env\.params\.clearance=\(not set\), now env\.params\.clearance=2",
        ),
        (lambda c: setattr(c.run, "checkpoint", "x"), r"run\.checkpoint=, now run\.checkpoint=x"),
        (lambda c: setattr(c.policy.network, "hidden", [8]), r"hidden=\[512, 512, 512\], now .*hidden=\[8\]"),
    ],
)
def test_other_settings_are_refused_and_named(
    tmp_path: Path, config: Config, change: Callable[[Config], None], named: str
) -> None:
    open_run(tmp_path, config).__exit__(None, None, None)
    before = (tmp_path / "config.yaml").read_bytes()
    change(config)
    with pytest.raises(RunError, match=named):
        open_run(tmp_path, config)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_another_verb_in_the_folder_is_refused(tmp_path: Path, config: Config) -> None:
    open_run(tmp_path, config).__exit__(None, None, None)
    with pytest.raises(RunError, match=r"holds a finetune run, this is pretrain: choose another folder with run\.dir="):
        open_run(tmp_path, config, "pretrain")


def test_a_second_writer_is_told_who_holds_the_folder(tmp_path: Path, config: Config, spawn: Any) -> None:
    child = spawn(holding(tmp_path, config))
    assert child.heard() == "open"
    with pytest.raises(RunError, match=rf"{tmp_path} is being written by process {child.pid} on .*: wait for it"):
        open_run(tmp_path, config)
    child.kill()
    with open_run(tmp_path, config) as run:
        assert run.resumed


def test_the_same_process_cannot_open_a_run_twice_but_again_after_closing(tmp_path: Path, config: Config) -> None:
    with open_run(tmp_path, config), pytest.raises(RunError, match=f"process {os.getpid()}"):
        open_run(tmp_path, config)
    open_run(tmp_path, config).__exit__(None, None, None)


def test_a_worker_that_outlives_its_killed_parent_does_not_keep_the_lock(
    tmp_path: Path, config: Config, spawn: Any
) -> None:
    def work(say: Callable[[str], None]) -> None:
        run = open_run(tmp_path, config)
        if os.fork() == 0:
            time.sleep(2)
            os._exit(0)
        say(str(run.path))
        time.sleep(60)

    child = spawn(work)
    child.heard()
    os.kill(child.pid, 9)
    child.wait()
    open_run(tmp_path, config).__exit__(None, None, None)


def test_a_refused_run_leaves_the_folder_free(tmp_path: Path, config: Config) -> None:
    open_run(tmp_path, config).__exit__(None, None, None)
    config.seed = 1
    with pytest.raises(RunError):
        open_run(tmp_path, config)
    config.seed = 0
    open_run(tmp_path, config).__exit__(None, None, None)


def test_a_kill_at_any_line_of_opening_leaves_a_folder_that_opens(
    tmp_path: Path, config: Config, killed_at_line: Callable[..., bool]
) -> None:
    line = 0
    sources = ("training/run.py", "training/files.py")
    work = lambda: open_run(tmp_path / str(line), config).__exit__(None, None, None)  # noqa: E731
    while killed_at_line(work, sources, line):
        work()
        line += 4
    assert line > 40


def test_a_full_disk_while_opening_is_one_sentence(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(RunError, match=r"cannot write .*versions\.json: the disk is full"):
        open_run(tmp_path, config)
    monkeypatch.undo()
    with open_run(tmp_path, config) as run:
        assert not run.resumed
        (run.path / "log.txt").symlink_to("/dev/full")
        with pytest.raises(RunError, match=r"log\.txt: the disk is full"):
            run.log("anything")


def test_damaged_settings_are_named(tmp_path: Path, config: Config) -> None:
    open_run(tmp_path, config).__exit__(None, None, None)
    for text in ("a: [", "just words", ""):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(RunError, match=r"config\.yaml"):
            open_run(tmp_path, config)
    with pytest.raises(RunError, match=r"is not a run folder: it has no config\.yaml"):
        read_config(tmp_path / "nothing")


def holding(path: Path, config: Config) -> Callable[[Callable[[str], None]], None]:
    def work(say: Callable[[str], None]) -> None:
        with open_run(path, config):
            say("open")
            time.sleep(60)

    return work
