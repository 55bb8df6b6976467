"""The verb `deploy`: a bundle's node and a simulated robot as two processes that meet on ROS 2's topics only.

The node is the very program that runs beside a real robot. What is measured is measured on the robot's side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robo_rlft.errors import BundleError, ConfigError
from robo_rlft.export.latency import Latency
from robo_rlft.export.manifest import read_manifest
from robo_rlft.export.robot.bus_robot import Episode, Record, RobotNode
from robo_rlft.export.robot.dds import Participant
from robo_rlft.export.robot.description import read_description
from robo_rlft.export.robot.faults import Faults
from robo_rlft.export.robot.simulated import SimulatedRobot
from robo_rlft.training.files import atomic_write, make_folder
from robo_rlft.training.progress import console, summary_table
from robo_rlft.training.statistics import wilson
from robo_rlft.training.video import write_mp4

MODULE = "robo_rlft.export.robot.node"
"""What the policy's process runs."""
FIRST_SEED = 1_000_000
"""Seeds of evaluated episodes, the same as those of `robo-rlft evaluate` and `run`."""
START_S = 60.0
FILM_HZ, FILM_SIZE = 12.5, (180, 240)
"""Drawing without a GPU takes a tenth of a second per picture."""


@dataclass(frozen=True)
class Settings:
    """How to deploy.

    Attributes:
        episodes: to play.
        seconds: stop after so long, 0 for no limit.
        seed: of the first episode.
        faults: between robot and policy.
        in_step: the robot waits for each command instead of for the clock.
        record: MCAP file to write.
        video: MP4 file of the first episode.
        json: file of what was measured.
        domain_id: ROS_DOMAIN_ID; None takes the environment's, else one of this process's own.
        priority: SCHED_FIFO priority of the policy's process, 0 for none.
        runtime: what runs the bundle, `python` or `native`.
        policy: start the policy; False waits for one that somebody else starts.
    """

    episodes: int = 5
    seconds: float = 0.0
    seed: int = FIRST_SEED
    faults: Faults = field(default_factory=Faults)
    in_step: bool = False
    record: Path | None = None
    video: Path | None = None
    json: Path | None = None
    domain_id: int | None = None
    priority: int = 0
    runtime: str = "python"
    policy: bool = True

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.seconds < 0 or self.seed < 0:
            raise ConfigError("deploy needs at least one episode, and seconds and a seed that are not negative")
        if self.in_step and self.runtime == "native":
            raise ConfigError("the native runtime limits motion by the clock, which --in-step outruns: leave one out")


def deploy(bundle: Path | str, settings: Settings | None = None) -> dict[str, Any]:
    """Run a bundle against a simulated robot over ROS 2's topics, and say how it went.

    Args:
        bundle: its folder.
        settings: see there.

    Returns:
        What was measured, as plain data.

    Raises:
        BundleError: the bundle is refused, or its process ended.
        ConfigError: its environment cannot be a simulated robot.
        RunError: the two do not find each other.
    """
    given = settings or Settings()
    read_description(bundle)
    domain_id = _domain(given.domain_id)
    with ExitStack() as stack:
        note = stack.enter_context(_recording(given.record))
        robot = _robot(bundle, given.faults)
        stack.callback(robot.close)
        bus = stack.enter_context(Participant(domain_id, _discovery()))
        film = max(round(robot.spec.rate_hz / FILM_HZ), 1) if given.video else 0
        node = RobotNode(robot, bus, given.faults, in_step=given.in_step, record=note.write, film_every=film)
        process = stack.enter_context(_policy(bundle, domain_id, given)) if given.policy else None
        console.print(f"robot and policy meet in ROS_DOMAIN_ID={domain_id}", highlight=False)
        node.wait_for_controller(START_S)
        episodes = _play(node, given, process, note)
        _end(process, bus, node)
        record = _record(bundle, robot, node, episodes, given)
        record["video"] = _film(robot, episodes[0], given.video, robot.spec.rate_hz / max(film, 1))
    _show(record)
    if given.json:
        make_folder(given.json.parent)
        atomic_write(given.json, json.dumps(record, indent=1).encode())
    return record


def _play(node: RobotNode, settings: Settings, process: subprocess.Popen[bytes] | None, note: _Note) -> list[Episode]:
    end = time.monotonic() + settings.seconds if settings.seconds else np.inf
    episodes: list[Episode] = []

    def going() -> bool:
        if process is not None and process.poll() is not None:
            raise BundleError(f"the policy's process ended with status {process.returncode}: see its message above")
        return time.monotonic() < end

    while len(episodes) < settings.episodes and going():
        episodes.append(node.episode(settings.seed + len(episodes), going))
        note.outcome(episodes[-1])
    return episodes


def _robot(bundle: Path | str, faults: Faults) -> SimulatedRobot:
    spec = read_manifest(bundle).robot
    robot = SimulatedRobot(spec.env_id, faults, params=spec.task)
    try:
        spec.check(robot.spec, f"bundle {bundle}", f"environment {spec.env_id}")
    except BaseException:
        robot.close()
        raise
    return robot


@contextmanager
def _policy(bundle: Path | str, domain_id: int, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", MODULE, str(bundle), "--priority", str(settings.priority)]
    command += ["--runtime", settings.runtime, "--until-eof"]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "ROS_AUTOMATIC_DISCOVERY_RANGE": _discovery()}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _end(process: subprocess.Popen[bytes] | None, bus: Participant, node: RobotNode) -> None:
    """Ask the policy to end, and hear its last report."""
    if process is None:
        return
    before = dict(node.told_by_policy)
    process.send_signal(signal.SIGTERM)
    bus.wait_for(lambda: node.told_by_policy != before, 2.0)


class _Note:
    """Where messages and outcomes go; nowhere without a file."""

    def __init__(self, recorder: Any = None) -> None:
        self._recorder = recorder

    @property
    def write(self) -> Record | None:
        """Gets every message."""
        return None if self._recorder is None else self._recorder.write

    def outcome(self, episode: Episode) -> None:
        """How an episode ended, for those who read the recording."""
        if self._recorder is not None:
            facts = {"success": str(episode.success).lower(), "seed": str(episode.seed), "return": repr(episode.ret)}
            self._recorder.mark("robo_rlft.episode", episode.last_ns, facts)


@contextmanager
def _recording(path: Path | None) -> Iterator[_Note]:
    if path is None:
        yield _Note()
        return
    from robo_rlft.rosmsg.mcap_file import Recorder

    make_folder(path.parent)
    with Recorder(path) as recorder:
        yield _Note(recorder)


def _record(
    bundle: Path | str, robot: SimulatedRobot, node: RobotNode, episodes: Sequence[Episode], settings: Settings
) -> dict[str, Any]:
    times = [t for episode in episodes for t in episode.round_trip_s]
    finished = [episode for episode in episodes if episode.finished]
    successes = sum(episode.success for episode in finished)
    return {
        "bundle": str(bundle),
        "env_id": robot.spec.env_id,
        "rate_hz": robot.spec.rate_hz,
        "in_step": settings.in_step,
        "asked": asdict(settings.faults),
        "episodes": [
            {
                "seed": e.seed,
                "steps": e.steps,
                "return": e.ret,
                "success": e.success,
                "finished": e.finished,
                "late_steps": e.late_steps,
            }
            for e in episodes
        ],
        "success": asdict(wilson(successes, len(finished))) if robot.env.has_success and finished else None,
        "round_trip": Latency.of(times).to_dict() if times else None,
        "faults": {
            "sensor messages lost": node.sensors.dropped,
            "sensor messages reordered": node.sensors.reordered,
            "commands lost": node.commands.dropped,
            "commands reordered": node.commands.reordered,
            "control steps without a new command": sum(e.late_steps for e in episodes),
            "control steps begun late": sum(e.overruns for e in episodes),
            **{f"commands refused: {reason}": count for reason, count in node.refused.items()},
        },
        "policy": dict(node.told_by_policy),
    }


def _film(robot: SimulatedRobot, episode: Episode, path: Path | None, fps: float) -> str:
    """Draw the kept states; a machine that cannot gives no video and one line that says so."""
    if path is None or not episode.states:
        return ""
    try:
        frames = [_drawn(robot, state) for state in episode.states]
    except ConfigError as error:
        console.print(f"no video: {error}", markup=False, soft_wrap=True)
        return ""
    return str(write_mp4(path, np.stack(frames), fps))


def _drawn(robot: SimulatedRobot, state: Mapping[str, np.ndarray]) -> np.ndarray:
    robot.env.set_state(dict(state))
    return robot.env.render(size=FILM_SIZE)[0]


def _show(record: Mapping[str, Any]) -> None:
    episodes, success = record["episodes"], record["success"]
    row: dict[str, object] = {"episodes": len(episodes), "steps": sum(e["steps"] for e in episodes)}
    if success is not None:
        row["success"] = f"{success['mean']:.3f} ({success['low']:.3f} to {success['high']:.3f})"
    row["mean return"] = round(float(np.mean([e["return"] for e in episodes])), 2)
    pace = "in step" if record["in_step"] else f"at {record['rate_hz']:g} Hz"
    summary_table(f"{record['env_id']} {pace}: bundle {record['bundle']} over ROS 2's topics", [row])
    if record["round_trip"]:
        rounded = {k.replace("_us", " ms"): round(v / 1e3, 2) for k, v in record["round_trip"].items() if "_us" in k}
        summary_table("round trip, sensors to command", [{"answers": record["round_trip"]["calls"], **rounded}])
    counts = {k: v for k, v in {**record["faults"], **record["policy"]}.items() if v not in (0, "0")}
    summary_table("faults, and what the policy says", [{"what": k, "count": v} for k, v in counts.items()])


def _domain(given: int | None) -> int:
    """A demonstration that nobody gave a domain takes one of its own, so that two of them do not meet."""
    if given is not None:
        return given
    text = os.environ.get("ROS_DOMAIN_ID", "")
    return int(text) if text.isdigit() else 1 + os.getpid() % 100


def _discovery() -> str:
    return os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
