"""The verbs as a table. Each row calls one function of the package, imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo_rlft.cli.verb import Arguments, Flag, Positional, Verb
from robo_rlft.errors import ConfigError

if TYPE_CHECKING:
    from robo_rlft.export.serving.client import RemotePolicy
    from robo_rlft.training.config import Config

RUN = "runs/reinflow/arm_peg_insert/finetune-seed0"
RECIPE = "recipe=reinflow/arm_peg_insert"
JSON = Flag("--json", "also write what was measured, as JSON", "PATH")
SERVE_FLAGS = (
    Flag("--host", "address to listen on (127.0.0.1: this machine only)", "HOST"),
    Flag("--port", "TCP port (8000); 0 lets the system choose", "PORT"),
    Flag("--token-file", "file with the token that clients must show", "FILE"),
    Flag("--certificate", "certificate for TLS, with its chain, PEM", "FILE"),
    Flag("--key", "the certificate's key, PEM", "FILE"),
    Flag("--map", "a client's keys by the policy's: observation/state=policy,...", "MAP"),
    Flag("--ignore", "keys of a client that mean nothing here: prompt,...", "KEYS"),
    Flag("--seed", "of the noise where clients send none; each connection then draws the same", "SEED"),
    Flag("--threads", "threads of one inference (1)", "COUNT"),
    Flag("--device", "where a RUN is computed: cpu through ONNX Runtime, or cuda through torch", "DEVICE"),
    Flag("--max-clients", "most connections at once (64)", "COUNT"),
    Flag("--max-message-mb", "longest message (32)", "MB"),
    Flag("--max-batch", "most rows of one inference (64)", "ROWS"),
    Flag("--max-wait-ms", "longest wait of a request for others to be computed with (2)", "MS"),
    Flag("--grace-s", "longest time the end waits for current requests (10)", "SECONDS"),
)
SERVER_FLAGS = (
    Flag("--server", "ask this policy server (ws://HOST:PORT or wss://) instead of a process of its own", "URL"),
    Flag("--token-file", "file with the server's token", "FILE"),
    Flag("--certificate", "certificate of the server or of who signed it, PEM; else the system's", "FILE"),
)


def _config(arguments: Arguments, base: Path | None = None) -> Config | None:
    """The composed settings, or None after `--show-config` printed them.

    Args:
        arguments: the command line.
        base: a run, or something in one, whose settings replace the defaults.
    """
    from robo_rlft.training import configure
    from robo_rlft.training.paths import run_folder

    settings = run_folder(base) / "config.yaml" if base else None
    config = configure.compose(
        arguments.overrides,
        verb=arguments.verb,
        config_dir=arguments.config_dir,
        base=settings if settings and settings.is_file() else None,
    )
    if "--show-config" not in arguments.flags:
        return config
    print(configure.to_yaml(config), end="")
    return None


def _config_of_run(arguments: Arguments) -> Config | None:
    """The settings of the run that is named by RUN or by `run.checkpoint`, with the command line's on top."""
    named = [word.removeprefix("run.checkpoint=") for word in arguments.overrides if word.startswith("run.checkpoint=")]
    run = arguments.positionals.get("RUN") or next(iter(named), None)
    config = _config(arguments, Path(run) if run else None)
    if config is not None and run:
        config.run.checkpoint = run
    return config


def _json_path(arguments: Arguments) -> Path | None:
    path = arguments.flags.get("--json")
    return Path(path) if path else None


def _collect(arguments: Arguments) -> None:
    if (config := _config(arguments)) is not None:
        from robo_rlft.training.collect import collect

        collect(config)


def _pretrain(arguments: Arguments) -> None:
    if (config := _config(arguments)) is not None:
        from robo_rlft.training.pretrain import pretrain

        pretrain(config)


def _finetune(arguments: Arguments) -> None:
    if (config := _config(arguments)) is not None:
        from robo_rlft.training.finetune import finetune

        finetune(config)


def _evaluate(arguments: Arguments) -> None:
    if (config := _config_of_run(arguments)) is None:
        return
    if "--sweep" in arguments.flags:
        from robo_rlft.training.sweep import parse, sweep

        sweep(config, *parse(arguments.flags["--sweep"]))
    else:
        from robo_rlft.training.evaluate import evaluate

        evaluate(config)


def _export(arguments: Arguments) -> None:
    if (config := _config_of_run(arguments)) is not None:
        from robo_rlft.export.bundle import export

        export(config)


def _import(arguments: Arguments) -> None:
    """Its `key=value` words are its own options, not settings of a run."""
    from robo_rlft.export.foreign import import_policy

    model = Path(arguments.positionals["ONNX"])
    target = arguments.positionals.get("OUT") or model.with_suffix("")
    options = dict(map(_option, arguments.overrides))
    if unknown := set(options) - {"overwrite"}:
        raise ConfigError(f"robo-rlft import takes overwrite=true alone, not {', '.join(sorted(unknown))}")
    print(import_policy(model, arguments.positionals["SPEC"], target, overwrite=options.get("overwrite") is True))


def _run(arguments: Arguments) -> None:
    if (config := _config(arguments)) is not None:
        from robo_rlft.export.run import for_bundle, run

        bundle = Path(arguments.positionals["BUNDLE"])
        chosen = any(word.startswith(("env.id=", "recipe=")) for word in arguments.overrides)
        policy = _served(arguments, bundle)
        run(bundle, for_bundle(config, bundle, chosen=chosen), json_path=_json_path(arguments), policy=policy)


def _served(arguments: Arguments, bundle: Path) -> RemotePolicy | None:
    """The policy server that `--server` names, if it serves this bundle."""
    if "--server" not in arguments.flags:
        return None
    from robo_rlft.export.serving.client import connect_to

    given = arguments.flags
    return connect_to(bundle, given["--server"], given.get("--token-file", ""), given.get("--certificate", ""))


def _serve(arguments: Arguments) -> None:
    """A bundle is served without torch; a run is exported first."""
    if arguments.overrides:
        raise ConfigError(f"robo-rlft serve takes flags, no settings, got '{arguments.overrides[0]}'")
    from robo_rlft.export.serving.launch import serve
    from robo_rlft.export.serving.open import open_policy
    from robo_rlft.export.serving.options import from_flags

    options = from_flags(arguments.flags)
    path = Path(arguments.positionals["BUNDLE|RUN"])
    serve(open_policy(path, arguments.flags), options, str(path))


_DEPLOY_FLAGS = (
    Flag("--episodes", "episodes to play (5)", "N"),
    Flag("--seconds", "stop after so long", "S"),
    Flag("--seed", "of the first episode (1000000)", "N"),
    Flag("--latency-ms", "how late every message arrives, each way", "MS"),
    Flag("--jitter-ms", "how much later still at most", "MS"),
    Flag("--drop", "probability that a message is lost, each way", "P"),
    Flag("--reorder", "probability that a message arrives after its successor", "P"),
    Flag("--noise", "noise of the sensors; 1 is that of ordinary hardware", "X"),
    Flag("--friction", "factor on the friction of everything that touches", "X"),
    Flag("--in-step", "the robot waits for each command, instead of for the clock"),
    Flag("--record", "write all messages to an MCAP file", "PATH"),
    Flag("--video", "film the first episode, as MP4", "PATH"),
    Flag("--priority", "SCHED_FIFO priority of the policy's process, where this is allowed", "1..99"),
    Flag("--runtime", "what runs the bundle: python, or native after make runtime", "NAME"),
    Flag("--robot-only", "start the robot alone, for a policy that runs elsewhere"),
    JSON,
)


def _deploy(arguments: Arguments) -> None:
    from robo_rlft.export.robot.deploy import Settings, deploy
    from robo_rlft.export.robot.faults import Faults

    if arguments.overrides:
        raise ConfigError(f"deploy takes flags, not settings: {arguments.overrides[0]!r} (robo-rlft deploy --help)")
    flags = arguments.flags
    faults = Faults(
        latency_s=_number(flags, "--latency-ms", 0.0) / 1e3,
        jitter_s=_number(flags, "--jitter-ms", 0.0) / 1e3,
        friction=_number(flags, "--friction", 1.0),
        **{name: _number(flags, f"--{name}", 0.0) for name in ("drop", "reorder", "noise")},
    )
    settings = Settings(
        seconds=_number(flags, "--seconds", 0.0),
        faults=faults,
        in_step="--in-step" in flags,
        runtime=flags.get("--runtime", Settings.runtime),
        policy="--robot-only" not in flags,
        episodes=int(_number(flags, "--episodes", Settings.episodes)),
        seed=int(_number(flags, "--seed", Settings.seed)),
        priority=int(_number(flags, "--priority", Settings.priority)),
        record=Path(flags["--record"]) if "--record" in flags else None,
        video=Path(flags["--video"]) if "--video" in flags else None,
        json=_json_path(arguments),
    )
    deploy(arguments.positionals["BUNDLE"], settings)


def _number(flags: Mapping[str, str], name: str, otherwise: float) -> float:
    text = flags.get(name)
    try:
        return otherwise if text is None else float(text)
    except ValueError as error:
        raise ConfigError(f"{name} needs a number, got {text!r}") from error


def _view(arguments: Arguments) -> None:
    from robo_rlft.training.report import view

    view(Path(arguments.positionals["RUN"]))


CASES = ("envs", "pool", "render", "data", "update", "iteration", "mjx", "serve")


def _bench(arguments: Arguments) -> None:
    config = _config(arguments)
    if config is None:
        return
    case, path = arguments.positionals["CASE"], _json_path(arguments)
    if case == "envs":
        from robo_rlft.training.bench import envs

        envs.run(str(path) if path else None, **_narrowed(arguments, config))
    elif case == "pool":
        from robo_rlft.training.bench import pool

        pool.run(str(path) if path else None, **_narrowed_pool(arguments, config))
    elif case == "render":
        from robo_rlft.training.bench import render

        render.run(path, **_narrowed_images(arguments, config))
    elif case == "mjx":
        from robo_rlft.training.bench import mjx

        physics = config.env.params.get("physics")
        mjx.run(str(path) if path else None, device=config.device, physics=physics, **_narrowed(arguments, config))
    elif case == "data":
        from robo_rlft.training.bench import data

        data.run(path)
    elif case == "serve":
        from robo_rlft.export.serving import bench

        bench.run(path)
    elif case == "iteration":
        from robo_rlft.training.bench import iteration

        iteration.run(path, config=config)
    else:
        from robo_rlft.training.bench import update

        update.run(path, config=config)


def _narrowed_pool(arguments: Arguments, config: Config) -> dict[str, Any]:
    given = {word.partition("=")[0] for word in arguments.overrides}
    asked: dict[str, tuple[str, Any]] = {
        "env.id": ("envs", [config.env.id]),
        "env.num_envs": ("workers", config.env.num_envs),
    }
    return dict(value for key, value in asked.items() if key in given)


def _narrowed(arguments: Arguments, config: Config) -> dict[str, Any]:
    """What of the benchmark of environments the command line names; the rest keeps the benchmark's own range."""
    given = {word.partition("=")[0] for word in arguments.overrides}
    asked = {"env.id": ("envs", [config.env.id]), "env.num_envs": ("num_envs", [config.env.num_envs])}
    asked["env.threads"] = ("threads", config.env.threads)
    return dict(value for key, value in asked.items() if key in given)


def _narrowed_images(arguments: Arguments, config: Config) -> dict[str, Any]:
    given = {word.partition("=")[0] for word in arguments.overrides}
    asked = {"env.id": ("env_id", config.env.id), "env.num_envs": ("num_envs", [config.env.num_envs])}
    asked["env.images.size"] = ("sizes", config.env.images.size[:1])
    return dict(value for key, value in asked.items() if key in given)


def _doctor(arguments: Arguments) -> int:
    """`data=PATH` and `env=ID` are taken as they stand, so that neither needs quotes of Hydra's."""
    found = {"data": "", "env": ""}
    others: list[str] = []
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key in found:
            found[key] = value
        else:
            others.append(word)
    if (config := _config(replace(arguments, overrides=tuple(others)))) is None:
        return 0
    config.data.path = found["data"] or config.data.path
    config.env.id = found["env"] or config.env.id
    if found["env"] or any(word.startswith("env.id=") for word in others):
        from robo_rlft.training.doctor_env import doctor_env

        return 1 if doctor_env(config) else 0
    from robo_rlft.training.doctor import doctor

    return 1 if doctor(config) else 0


def _list(arguments: Arguments) -> None:
    from robo_rlft.training.catalogue import show

    show(arguments.positionals.get("PART", ""), arguments.config_dir)


def _convert(arguments: Arguments) -> None:
    """Its `key=value` words are the conversion's own options, not settings of a run."""
    from robo_rlft.data.convert import convert

    options = dict(map(_option, arguments.overrides))
    print(convert(Path(arguments.positionals["SRC"]), Path(arguments.positionals["DST"]), **options))


def _option(word: str) -> tuple[str, Any]:
    import yaml

    key, _, value = word.partition("=")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"cannot read the value of {word!r}: expected YAML, e.g. policy_keys=[state,gripper]"
        ) from error


def _demo(arguments: Arguments) -> None:
    named = any(word.startswith("recipe=") for word in arguments.overrides)
    overrides = arguments.overrides if named else (RECIPE, *arguments.overrides)
    if (config := _config(replace(arguments, overrides=overrides))) is not None:
        from robo_rlft.demo import demo

        demo(config)


_TABLE = (
    Verb(
        "collect",
        "record demonstrations from a scripted expert or a trained policy",
        "Steps many copies of the environment, records whole episodes into a zarr data set and prints how many of them "
        "succeeded. Interrupted, it continues where it was.",
        (
            (f"robo-rlft collect {RECIPE}", "100 successful episodes of the scripted expert"),
            (
                "robo-rlft collect env.id=ArmPickPlace collect.episodes=500 data.path=my_demos.zarr",
                "more episodes, into a data set of your own",
            ),
            (
                "robo-rlft collect env.id=Hopper collect.source=runs/gaussian_ppo/hopper collect.keep=all",
                "what a trained policy does, failures included",
            ),
        ),
        _collect,
        settings=("env", "data", "collect"),
    ),
    Verb(
        "pretrain",
        "learn a policy from demonstrations (behaviour cloning by flow matching)",
        "Reads a data set, fits the policy's flow to it and leaves a run folder with checkpoints and a report. Killed "
        "at any time and started again, it continues.",
        (
            (f"robo-rlft pretrain {RECIPE}", "the recipe's own data and network"),
            (f"robo-rlft pretrain {RECIPE} policy.network.name=unet1d bc.steps=30000", "another network, longer"),
            ("robo-rlft pretrain env.id=Hopper data.path=my_demos.zarr seed=1", "your own data"),
        ),
        _pretrain,
        settings=("data", "policy", "bc", "run"),
    ),
    Verb(
        "finetune",
        "improve a policy by reinforcement learning in simulation",
        "Runs PPO on the policy's chain from noise to action. With a flow policy it starts from the recipe's "
        "pre-trained run (or run.checkpoint); a Gaussian policy may start from nothing. Killed and started again, it "
        "continues.",
        (
            (f"robo-rlft finetune {RECIPE}", "after collect and pretrain with the same recipe"),
            ("robo-rlft finetune recipe=gaussian_ppo/hopper", "PPO from scratch"),
            (
                f"robo-rlft finetune {RECIPE} seed=1 ppo.iterations=200 run.dir=runs/longer",
                "another seed, longer, in a folder of its own",
            ),
        ),
        _finetune,
        settings=("env", "policy.chain", "residual", "ppo", "run"),
    ),
    Verb(
        "evaluate",
        "measure a policy on fixed seeds, with intervals and videos",
        "The same episodes for every method: mean return and success with 95 % intervals, a table per seed, videos.",
        (
            (f"robo-rlft evaluate {RUN}", "200 episodes of the last checkpoint"),
            (f"robo-rlft evaluate {RUN} evaluate.episodes=50 evaluate.videos=8", "fewer episodes, more films"),
            (f"robo-rlft evaluate {RUN} evaluate.guidance=1.5", "half a step beyond what fine-tuning changed (RLG)"),
            (f"robo-rlft evaluate {RUN} --sweep evaluate.guidance=0,0.5,1,1.5,2", "success over the weight, drawn"),
        ),
        _evaluate,
        positionals=(Positional("RUN", "run folder or checkpoint; else run.checkpoint", required=False),),
        flags=(Flag("--sweep", "evaluate at several values of evaluate.guidance or evaluate.steps", "KEY=V1,V2"),),
        settings=("evaluate",),
    ),
    Verb(
        "export",
        "write a policy as a controller bundle (ONNX, controller.yaml, golden pairs)",
        "A bundle holds all a robot needs: the network with its sampling loop unrolled, normalisation, joint names and "
        "limits, rates, and inputs with their right outputs, checked before anything moves.",
        (
            (f"robo-rlft export {RUN}", "writes the bundle into the run folder"),
            (f"robo-rlft export {RUN} export.checkpoint=best export.dir=my_bundle", "another checkpoint and place"),
        ),
        _export,
        positionals=(Positional("RUN", "run folder or checkpoint; else run.checkpoint", required=False),),
        settings=("export",),
    ),
    Verb(
        "import",
        "make a controller bundle of an ONNX policy trained elsewhere (rsl_rl, mjlab)",
        "Takes a model with one observation [1, D] and one action [1, A] and a YAML file that describes the robot: "
        "joints and their order, default pose, limits, gains, action meaning and observation terms. The model's own "
        "metadata fills the gaps; a contradiction is an error.",
        (("robo-rlft import policy.onnx robot.yaml my_bundle", "the same bundle as that of robo-rlft export"),),
        _import,
        positionals=(
            Positional("ONNX", "the model"),
            Positional("SPEC", "YAML file that describes the robot"),
            Positional("OUT", "the bundle's folder; else the model's path without .onnx", required=False),
        ),
    ),
    Verb(
        "run",
        "run a controller bundle in closed loop with the simulator",
        "Checks the bundle's hashes and golden pairs, then drives the simulated robot with it through ONNX Runtime "
        "and prints latency and success.",
        (
            (f"robo-rlft run {RUN}/bundle", "200 episodes on the evaluation's seeds"),
            (f"robo-rlft run {RUN}/bundle --server ws://localhost:8000", "the same, computed by robo-rlft serve"),
        ),
        _run,
        positionals=(Positional("BUNDLE", "folder written by robo-rlft export"),),
        flags=(JSON, *SERVER_FLAGS),
        settings=("evaluate",),
    ),
    Verb(
        "serve",
        "serve a policy to robots and programs on other machines (websocket, openpi's protocol)",
        "Answers observations with chunks of actions, several clients in one inference, over websocket and msgpack; "
        "clients of openpi work unchanged. Needs robo-rlft[serve], and no torch for a bundle. SIGTERM or Ctrl-C "
        "finishes current requests, then prints what was counted.",
        (
            (f"robo-rlft serve {RUN}/bundle", "for programs on this machine, port 8000"),
            (
                f"robo-rlft serve {RUN}/bundle --host 0.0.0.0 --token-file token --certificate cert.pem --key key.pem",
                "for other machines, with a token and TLS",
            ),
            (
                f"robo-rlft serve {RUN}/bundle --map observation/state=policy --ignore prompt",
                "for a client with names of its own",
            ),
        ),
        _serve,
        positionals=(Positional("BUNDLE|RUN", "folder written by robo-rlft export; a run is exported first"),),
        flags=SERVE_FLAGS,
    ),
    Verb(
        "deploy",
        "run a controller bundle against a simulated robot over ROS 2's topics",
        "Starts the bundle's node and a simulated robot as two processes that speak the ROS 2 wire protocol, needs no "
        "ROS installation, plays episodes in real time, and prints success, round-trip times and every fault.",
        (
            (f"robo-rlft deploy {RUN}/bundle --episodes 3 --video deploy.mp4", "in real time, filmed"),
            (f"robo-rlft deploy {RUN}/bundle --in-step --episodes 50", "as fast as both can"),
            (f"robo-rlft deploy {RUN}/bundle --latency-ms 20 --drop 0.02 --noise 1", "what a bad day does to it"),
        ),
        _deploy,
        positionals=(Positional("BUNDLE", "folder of a controller bundle"),),
        flags=_DEPLOY_FLAGS,
    ),
    Verb(
        "view",
        "open the report of a run: curves, videos, tables",
        "Opens report.html of a run in the browser; it is one file that needs no network. Without a display it prints "
        "the path.",
        ((f"robo-rlft view {RUN}", "curves, videos before and after, the table, the settings"),),
        _view,
        positionals=(Positional("RUN", "run folder"),),
    ),
    Verb(
        "bench",
        "measure environments, rendering, data loading, the update or whole iterations beside their limits and peers",
        "envs: steps per second beside the C limit and other vector environments. render: images per second beside "
        "OpenGL alone. data: windows per second beside memory maps and RAM. update: one fine-tuning update beside the "
        "plain loop over denoising steps. iteration: rollout and update of every method and network beside their "
        "matrix products. mjx: the MuJoCo tasks on JAX beside the CPU engine. serve: round trips of the policy server.",
        (
            ("robo-rlft bench envs", "the locomotion environments at every batch size"),
            ("robo-rlft bench envs env.id=ArmPegInsert env.num_envs=256", "one environment at one size"),
            ("robo-rlft bench pool env.id=gymnasium:Hopper-v5", "simulators that step one environment at a time"),
            ("robo-rlft bench render env.id=ArmPickPlace", "image observations by size and number of environments"),
            ("robo-rlft bench mjx device=cuda", "the MuJoCo tasks on a GPU beside the CPU engine"),
            ("robo-rlft bench serve", "the policy server beside the inference alone and openpi's server"),
            ("robo-rlft bench data --json data.json", "one row per case, for plots"),
            ("robo-rlft bench update recipe=reinflow/hopper", "at a recipe's shapes"),
            ("robo-rlft bench iteration recipe=dppo/hopper run.checkpoint=none", "one method, from random weights"),
        ),
        _bench,
        positionals=(Positional("CASE", "envs, pool, render, data, update, iteration, mjx or serve", choices=CASES),),
        flags=(JSON,),
    ),
    Verb(
        "doctor",
        "check this machine, a data set or an environment, and say what to do",
        "Checks Python, torch, threads, GPU, OpenGL, Vulkan, packages and disk; with data=PATH every episode of a data "
        "set instead; with env=ID every rule that an environment must follow, your own included. The exit status is 1 "
        "when something must be put right.",
        (
            ("robo-rlft doctor", "the machine"),
            ("robo-rlft doctor data=my_demos.zarr", "a data set: damage, NaN, wrong shapes"),
            ("robo-rlft doctor env=Hopper", "an environment: seeds, chunks, resets, states, closing"),
        ),
        _doctor,
    ),
    Verb(
        "list",
        "list environments, policies, methods, recipes and settings",
        "One line each, and whether the extra it needs is installed.",
        (
            ("robo-rlft list", "everything but the settings"),
            ("robo-rlft list envs", "environments, simulators, and what each can do"),
            ("robo-rlft list maniskill", "the tasks of one simulator"),
            ("robo-rlft list recipes", "one part: envs, policies, methods, recipes, extras or settings"),
        ),
        _list,
        positionals=(
            Positional(
                "PART",
                "envs, policies, methods, recipes, extras, settings or a simulator's name",
                required=False,
            ),
        ),
    ),
    Verb(
        "convert",
        "convert a data set of another project (diffusion_policy zarr, LeRobot v3, ROS 2 recordings)",
        "Recognises the format of SRC, streams it into a new data set at DST and reports what was assumed. SRC is "
        "never changed. key=value words are options of the conversion (format, rate_hz, overwrite ...).",
        (
            ("robo-rlft convert pusht.zarr data/pusht.zarr", "a diffusion_policy replay buffer"),
            ("robo-rlft convert my_lerobot_folder my_demos.zarr", "a LeRobot v3 folder"),
            (
                "robo-rlft convert old.zarr my_demos.zarr format=diffusion_policy rate_hz=10",
                "say what the data does not",
            ),
        ),
        _convert,
        positionals=(Positional("SRC", "what to read"), Positional("DST", "data set to write; must not exist")),
    ),
    Verb(
        "demo",
        "the whole way on two CPU cores: demonstrations, cloning, fine-tuning, controller",
        "Records demonstrations of a peg insertion, clones them, fine-tunes the policy with ReinFlow, evaluates all of "
        "it on the same 200 unused seeds, exports the controller and runs it. Leaves runs/demo/summary.json and a "
        "report.",
        (("robo-rlft demo", "about eight minutes"), ("robo-rlft demo seed=1", "another seed")),
        _demo,
    ),
)

VERBS: dict[str, Verb] = {verb.name: verb for verb in _TABLE}
"""Every verb by name, in the order of the overview."""
