"""The command line from the outside: help, errors, exit statuses, and what reaches each verb's function."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from robo_rlft import __version__, cli
from robo_rlft.cli import verbs
from robo_rlft.cli.verb import Arguments
from robo_rlft.errors import DataError
from robo_rlft.training.configure import compose, recipes, to_yaml

VERBS = (
    "collect",
    "pretrain",
    "finetune",
    "evaluate",
    "export",
    "import",
    "run",
    "serve",
    "deploy",
    "view",
    "bench",
    "doctor",
    "list",
    "convert",
    "demo",
)


def given(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Let a verb fail."""

    def fail(_: Arguments) -> None:
        raise error

    monkeypatch.setitem(verbs.VERBS, name, replace(verbs.VERBS[name], run=fail))


def test_every_verb_is_there() -> None:
    assert sorted(verbs.VERBS) == sorted(VERBS)


def test_the_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_with_examples_that_compose(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    for command, purpose in verbs.VERBS[verb].examples:
        assert command in out
        assert purpose in out
        assert command.split()[1] == verb
        names = [word.removeprefix("recipe=") for word in command.split() if word.startswith("recipe=")]
        assert set(names) <= set(recipes())


@pytest.mark.parametrize("verb", ["collect", "pretrain", "finetune"])
def test_examples_can_be_run(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, _ in verbs.VERBS[verb].examples:
        assert cli.main([*command.split()[1:], "--show-config"]) == 0, command
        assert "policy:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"robo-rlft {__version__}\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["finetun"], "finetune"),
        (["bench", "env"], "envs"),
        (["bench"], "CASE"),
        (["bench", "envs", "--jsn", "x"], "--json"),
        (["bench", "envs", "--json"], "PATH"),
        (["convert", "a"], "DST"),
        (["view"], "RUN"),
        (["collect", "hopper"], "key=value"),
        (["collect", "env.nmu_envs=3"], "env.num_envs"),
        (["finetune", "recipe=reinflow/hoper"], "reinflow/hopper"),
        (["collect", "--config-dir", "/nowhere"], "/nowhere"),
        (["list", "recipe"], "recipes"),
        (["convert", "a", "b", "x=["], "YAML"),
    ],
)
def test_mistakes_are_answered_by_one_sentence(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err


@pytest.mark.parametrize(
    ("error", "status", "named"),
    [
        (DataError("no data"), 2, "error: no data"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "env.num_envs"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 1, "out of memory"),
        (OSError(errno.ENOSPC, "No space left", "runs/a/last"), 1, "disk is full writing runs/a/last"),
    ],
)
def test_failures_end_with_one_line_and_a_status(
    error: BaseException,
    status: int,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given(monkeypatch, "collect", error)
    assert cli.main(["collect"]) == status
    err = capsys.readouterr().err
    assert named in err
    assert "Traceback" not in err


def test_bugs_and_requested_tracebacks_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "collect", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["collect"])
    given(monkeypatch, "collect", DataError("no data"))
    monkeypatch.setenv("ROBO_RLFT_TRACEBACK", "1")
    with pytest.raises(DataError):
        cli.main(["collect"])


def test_words_flags_and_settings_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Arguments] = []
    monkeypatch.setitem(verbs.VERBS, "bench", replace(verbs.VERBS["bench"], run=seen.append))
    for words in (["envs", "seed=1", "--json", "a=b.json"], ["--json=a=b.json", "seed=1", "envs"]):
        assert cli.main(["bench", *words]) == 0
    first, second = seen
    assert first == second
    assert (first.positionals, first.flags, first.overrides) == ({"CASE": "envs"}, {"--json": "a=b.json"}, ("seed=1",))


def test_a_run_brings_its_own_settings_to_evaluate_and_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import robo_rlft.export.bundle as bundle
    import robo_rlft.training.evaluate as evaluate

    seen = []
    monkeypatch.setattr(evaluate, "evaluate", seen.append)
    monkeypatch.setattr(bundle, "export", seen.append)
    (tmp_path / "config.yaml").write_text(to_yaml(compose(["recipe=reinflow/ant", "env.params.x=1"])))
    checkpoint = tmp_path / "checkpoints" / "last"
    checkpoint.mkdir(parents=True)
    assert cli.main(["evaluate", str(tmp_path), "evaluate.episodes=3"]) == 0
    assert cli.main(["export", f"run.checkpoint={checkpoint}"]) == 0
    assert [c.env.id for c in seen] == ["Ant", "Ant"]
    assert [c.env.params for c in seen] == [{"x": 1}, {"x": 1}]
    assert [c.run.checkpoint for c in seen] == [str(tmp_path), str(checkpoint)]
    assert seen[0].evaluate.episodes == 3


def test_doctor_takes_a_path_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import robo_rlft.training.doctor as module

    seen = []
    monkeypatch.setattr(module, "doctor", lambda config: seen.append(config.data.path) or 3)
    assert cli.main(["doctor", "data=my demos, [old].zarr"]) == 1
    assert seen == ["my demos, [old].zarr"]


def test_bench_of_environments_is_narrowed_by_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import robo_rlft.training.bench.envs as module

    seen = []
    monkeypatch.setattr(module, "run", lambda *words, **options: seen.append((words, options)))
    assert cli.main(["bench", "envs"]) == 0
    assert cli.main(["bench", "envs", "env.id=Ant", "env.num_envs=16", "env.threads=1", "--json", "rows.json"]) == 0
    assert seen == [((None,), {}), (("rows.json",), {"envs": ["Ant"], "num_envs": [16], "threads": 1})]


def test_options_of_a_conversion_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import robo_rlft.data.convert as module

    seen = []
    monkeypatch.setattr(module, "convert", lambda *words, **options: seen.append((words, options)))
    assert cli.main(["convert", "a.zarr", "b.zarr", "rate_hz=10", "policy_keys=[state, gripper]"]) == 0
    assert seen == [((Path("a.zarr"), Path("b.zarr")), {"rate_hz": 10, "policy_keys": ["state", "gripper"]})]


def test_every_verb_calls_a_function_that_exists() -> None:
    """The verbs import late, so a renamed function would only be missed by its user."""
    from robo_rlft import demo
    from robo_rlft.data import convert
    from robo_rlft.export import bundle, foreign, run
    from robo_rlft.training import catalogue, collect, doctor, evaluate, finetune, pretrain, report
    from robo_rlft.training.bench import data, envs, update

    functions = (collect.collect, pretrain.pretrain, finetune.finetune, evaluate.evaluate, demo.demo, report.view)
    assert all(map(callable, functions))
    assert all(
        map(callable, (doctor.doctor, catalogue.show, convert.convert, bundle.export, foreign.import_policy, run.run))
    )
    assert all(callable(case.run) for case in (envs, data, update))


def test_help_needs_no_heavy_import() -> None:
    """Asked of a fresh interpreter: the overview, a verb's help, and a wrong key."""
    program = (
        "import sys; from robo_rlft.cli import main; main(['--help']); main(['finetune', '--help']);"
        "main(['finetune', 'ppo.gama=1']);"
        "print([m for m in ('torch', 'mujoco', 'gymnasium', 'zarr', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_overview_comes_at_once() -> None:
    """Half a second of this process's own time; the wall clock of a busy machine would measure its other work."""
    program = "import time; from robo_rlft.cli import main; main(['--help']); print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert float(done.stdout.splitlines()[-1]) < 0.5


def test_a_reader_that_leaves_is_no_error() -> None:
    """`robo-rlft list settings | head -1`: no traceback, and no complaint at the end."""
    command = [sys.executable, "-m", "robo_rlft.cli", "list", "settings"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) in (0, 1)  # 1: rich noticed it first, and ends the program
