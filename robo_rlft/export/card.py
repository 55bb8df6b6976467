"""The bundle's model card, `README.md`: what it is, where it comes from, how well it does, its limits, its use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robo_rlft.export.manifest import Manifest


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The run's records of evaluations, the oldest first; those that cannot be read are left out."""
    files = sorted((run / "evaluation").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    records = (_record(file) for file in files)
    return [record for record in records if record is not None]


def model_card(manifest: Manifest, records: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The text of `README.md`.

    Args:
        manifest: the bundle.
        records: evaluations of the policy, as `training.evaluate` writes them.
    """
    parts = (_what(manifest), _trained(manifest), _results(records), _limits(manifest), _use(manifest))
    return ("\n\n".join(parts) + "\n").encode()


def _what(manifest: Manifest) -> str:
    stage, robot = manifest.stage, manifest.robot
    task = "a chunk" if stage.chunk > 1 else "an action"
    lines = [
        f"# Controller for {robot.env_id}",
        "",
        f"A learned policy (`{stage.chain}`, {stage.steps} network calls) that makes {task} of {stage.chunk} x "
        f"{manifest.event[1]} numbers out of {stage.obs_horizon} observation(s); {stage.execute} of them are executed "
        f"at {robot.rate_hz:g} Hz.",
        "",
        f"- observations: {', '.join(f'`{k}` {list(robot.observation[k].shape)}' for k in stage.observation)}",
        f"- actions: {_actions(manifest)}",
        f"- joints: {', '.join(joint.name for joint in robot.joints) or 'not described'}",
    ]
    return "\n".join(lines)


def _actions(manifest: Manifest) -> str:
    meaning, action = manifest.robot.action_meaning, manifest.robot.action
    kind = "meaning not described" if meaning is None else f"`{meaning.kind}`"
    return f"{kind}; {', '.join(action.names) or f'{action.shape[0]} entries'}"


def _trained(manifest: Manifest) -> str:
    source = {k: v for k, v in manifest.source.items() if not isinstance(v, Mapping)}
    counters = manifest.source.get("counters", {})
    rows = [f"- {key}: {value}" for key, value in {**source, **counters}.items()]
    return "\n".join(["## Where it comes from", "", *(rows or ["- not recorded"])])


def _results(records: Sequence[Mapping[str, Any]]) -> str:
    head = ["## Evaluation", ""]
    if not records:
        return "\n".join([*head, "The run has no evaluation: nothing is known about how well this policy does."])
    rows = [
        f"| {r['name']} | {r['env_id']} | {r['episodes']} | {_interval(r['success'])} | {_interval(r['return'])} |"
        for r in records
    ]
    table = ["| evaluation | environment | episodes | success | return |", "|---|---|---|---|---|", *rows]
    return "\n".join([*head, "In simulation, on seeds training never saw; intervals are 95 %.", "", *table])


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"


def _limits(manifest: Manifest) -> str:
    robot, timing = manifest.robot, manifest.timing
    known = [
        "the actions' limits are inside the model" if robot.action.low else "**the actions have no limits**",
        "joint limits are known" if robot.joints else "**no joint limits are known**: a runtime cannot enforce any",
        f"an inference may take {1e3 * timing.latency_budget_s:.3g} ms",
        f"a robot must hold when observations are older than {1e3 * timing.observation_timeout_s:.3g} ms",
        f"it must hold when no chunk came for {1e3 * timing.policy_timeout_s:.3g} ms",
        "the policy knows the situations it was trained on; elsewhere its actions are arbitrary within their limits",
    ]
    return "\n".join(["## Limits", "", *(f"- {line}" for line in known)])


def _use(manifest: Manifest) -> str:
    inputs = ", ".join(f"`{name}` [N, {', '.join(map(str, s))}]" for name, s in manifest.input_shapes().items())
    return "\n".join(
        [
            "## How to run it",
            "",
            "`controller.yaml` describes everything for people, `runtime.json` for programs.",
            f"`{manifest.stage.file}` takes {inputs} and returns `action` [N, {', '.join(map(str, manifest.event))}].",
            "",
            "    from robo_rlft.export.runtime import Controller",
            "    controller = Controller(BUNDLE)  # checks hashes and golden actions, or raises",
            "",
            "Whatever runs it checks the hashes and the golden pairs first.",
        ]
    )


def _record(file: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_bytes())
        return record if {"name", "env_id", "episodes", "success", "return"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None
