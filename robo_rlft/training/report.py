"""`report.html`: a whole run on one page that needs nothing but itself.

Read from the run folder: `evaluation/*.json`, `metrics.jsonl`, `videos/*.mp4`, `config.yaml`, `versions.json`. A folder
that holds several runs (a recipe's, the demo's) gives one page with all of them.
"""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from robo_rlft.errors import RunError
from robo_rlft.training import report_html as html
from robo_rlft.training.chart import Chart, Series
from robo_rlft.training.curves import Curves, RunCurves, charts_of
from robo_rlft.training.files import atomic_write
from robo_rlft.training.metrics import FILE as METRICS
from robo_rlft.training.metrics import read
from robo_rlft.training.progress import console, duration
from robo_rlft.training.report_html import Record
from robo_rlft.training.run import read_config
from robo_rlft.training.statistics import Interval

REPORT = "report.html"
SWEEPS = "sweeps"
"""Folder of a run with what `evaluate --sweep` found, one file per setting."""
IN_TRAINING = "training-"
"""Prefix of the names of evaluations made during training; they are points of a curve, not results of their own."""
ORDER = ("before", "pretrained", "bc", "bc_longer", "finetuned", "final", "controller")
"""Evaluations appear in this order, others before `final`."""
RESULTS = ("finetuned", "final")
"""Evaluations whose number is the run's result; without one it is the last."""


def view(path: Path | str, *, browser: bool | None = None) -> Path:
    """Build the report of a run anew and show it: the verb `view`.

    Args:
        path: a run folder, a folder of runs, or an existing report.html.
        browser: open it; None opens it where there is a screen.

    Returns:
        The path of the page, which is also printed.

    Raises:
        RunError: the path is no run; the message says which verb reads what it is instead.
    """
    given = Path(path)
    page = given if given.suffix == ".html" and given.is_file() else report_for(given)
    console.print(f"report: {page}", soft_wrap=True, markup=False)
    if _has_screen() if browser is None else browser:
        webbrowser.open(page.resolve().as_uri())
    return page


def report_for(path: Path | str, *, title: str = "", notes: Sequence[str] = ()) -> Path:
    """Build the report of a run, or of a folder of runs, from what lies in it.

    Args:
        path: the folder; the page is written there.
        title: headline; by default the task and what was done.
        notes: remarks to show.

    Raises:
        RunError: the folder is no run, or a file in it is damaged.
    """
    folder = Path(path)
    runs = find_runs(folder)
    records = {f: _records(f) for f in dict.fromkeys([folder, *runs])}
    configs = {_name(f, folder): read_config(f) for f in runs}
    versions = {f: _versions(f) for f in runs}
    tracks = [_curves(f, folder, versions[f], records[f]) for f in runs if (f / METRICS).is_file()]
    rows = _labelled(_results([record | {"folder": f} for f, found in records.items() for record in found]), folder)
    return write_report(
        folder,
        title=title or _title(rows, configs, versions.values(), folder),
        summary_rows=rows,
        curves=charts_of(tracks),
        videos=[(row, _videos(row)) for row in rows],
        config=configs,
        notes=notes,
        facts=_facts(rows, tracks, versions.values()),
        versions=_shared_versions(versions.values()),
        sweeps=[
            c
            for f in runs
            for file in sorted((f / SWEEPS).glob("*.json"))
            for c in sweep_charts(file, _name(f, folder))
        ],
    )


def write_report(
    run_path: Path,
    *,
    title: str,
    summary_rows: Sequence[Record],
    curves: Curves,
    videos: Sequence[tuple[Record, Sequence[Path]]],
    config: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
    facts: Sequence[str] = (),
    versions: Mapping[str, Any] | None = None,
    sweeps: Sequence[Chart] = (),
) -> Path:
    """Write `report.html` from its parts; `report_for` finds the parts itself.

    Args:
        run_path: folder of the page.
        title: headline.
        summary_rows: evaluation records in the order of the page.
        curves: charts.
        videos: per evaluation its video files, in the order of its episodes.
        config: settings by the name of the run ("" for the only one).
        notes: remarks.
        facts: short facts under the title.
        versions: packages and machine.
        sweeps: scores over a setting of the acting policy.
    """
    focus = focus_of(summary_rows)
    body = [
        html.header(title, facts, verdict(summary_rows)),
        html.cards(summary_rows, focus if len(summary_rows) > 1 else None),
        html.films(videos),
        html.curves(curves),
        html.sweeps(sweeps),
        html.strips(summary_rows),
        html.table(summary_rows),
        html.notes(notes),
        html.settings(config, versions or {}),
        "<footer>Written by robo-rlft. This page holds everything it shows.</footer>",
    ]
    frame = Template(resources.files("robo_rlft.training").joinpath(REPORT).read_text(encoding="utf-8"))
    page = frame.substitute(title=escape(title), body="\n".join(part for part in body if part))
    atomic_write(run_path / REPORT, page.encode())
    return run_path / REPORT


def sweep_charts(file: Path, run: str = "") -> list[Chart]:
    """Success (or, where the task has none, return) with its interval over the values of a setting.

    Where the values differ in cost, a second chart shows the same over the calls of networks per chunk.

    Raises:
        RunError: the file is damaged.
    """
    try:
        table = json.loads(file.read_bytes())
        share = table["rows"][0]["success"] is not None
        scores = [Interval(**row["success" if share else "return"]) for row in table["rows"]]
        x = np.array([row["value"] for row in table["rows"]], float)
        label = f"{table['key']} ({table['episodes']} episodes each)"
        # Sweeps of earlier versions say nothing of their cost.
        calls = np.array([sum(row.get("network_calls", {}).values()) for row in table["rows"]], float)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise RunError(f"{file} is damaged: remove it or sweep again") from error
    mean, low, high = (np.array([getattr(s, end) for s in scores]) for end in ("mean", "low", "high"))
    what, of = "Success" if share else "Return", f" {run}" if run else ""
    axes = [(f"{what} over {file.stem}{of}", label, x)]
    axes += (
        [(f"{what} over the cost of {file.stem}{of}", "network calls per chunk", calls)] if len(set(calls)) > 1 else []
    )
    return [
        Chart(title, axis, [Series("evaluation, 95 % interval", at, mean, low, high, dots=True)], percent=share)
        for title, axis, at in axes
    ]


def find_runs(folder: Path) -> list[Path]:
    """The folder itself if it is a run, and the runs up to two levels beneath it, by name.

    Raises:
        RunError: there are none; the message says what the folder is, if it is known.
    """
    if not folder.exists():
        raise RunError(f"{folder} does not exist: give the folder of a run, e.g. runs/NAME")
    found = sorted(p.parent for pattern in ("", "*/", "*/*/") for p in folder.glob(f"{pattern}config.yaml"))
    if not found and not (folder / "evaluation").is_dir():
        raise RunError(_not_a_run(folder))
    return found


def focus_of(records: Sequence[Record]) -> Record | None:
    """The evaluation whose number is the run's result."""
    named = [record for record in records if record["name"] in RESULTS]
    return (named or list(records) or [None])[-1]


def verdict(records: Sequence[Record]) -> str:
    """The change from the first evaluation to the result as a sentence; empty where there is nothing to compare."""
    focus = focus_of(records)
    if focus is None or focus["name"] == records[0]["name"]:
        return ""
    before, after = (_headlines(records, record["name"]) for record in (records[0], focus))
    share = html.headline(focus)[1]
    if html.headline(records[0])[1] != share:
        return ""
    first, last = (float(np.mean([interval.mean for interval in group])) for group in (before, after))
    verb = "rose" if last > first else "fell" if last < first else "stayed"
    what = ("Success" if share else "The mean return") + (f" over {len(after)} runs" if len(after) > 1 else "")
    change = f"{what} {verb} from {html.figure(first, share)} to {html.figure(last, share)}"
    if len(before) == len(after) == 1:
        apart = "do not overlap" if before[0].disjoint(after[0]) else "overlap, so that chance may explain it"
        return f"{change} ({html.label(records[0])} to {html.label(focus)}); the 95 % intervals {apart}."
    worst, best = (html.figure(limit([i.mean for i in after]), share) for limit in (min, max))
    return f"{change}; single runs ended between {worst} and {best}."


def _headlines(records: Sequence[Record], name: str) -> list[Interval]:
    return [html.headline(record)[0] for record in records if record["name"] == name]


def _not_a_run(folder: Path) -> str:
    if (folder / "zarr.json").exists():
        return f"{folder} is a data set, not a run: look at it with robo-rlft doctor data={folder}"
    if (folder / "controller.yaml").exists():
        return f"{folder} is a controller bundle, not a run: execute it with robo-rlft run {folder}"
    return f"{folder} is not a run folder: it has no config.yaml, nor has a folder in it"


def _records(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "evaluation").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return [_record(file) for file in files]


def _record(file: Path) -> dict[str, Any]:
    needed = {"name", "env_id", "episodes", "success", "return", "per_seed", "wall_seconds"}
    try:
        record = json.loads(file.read_bytes())
    except ValueError as error:
        raise RunError(f"{file} is damaged: remove it or evaluate again") from error
    missing = sorted(needed - set(record)) if isinstance(record, dict) else sorted(needed)
    if missing:
        raise RunError(f"{file} is no evaluation (it has no {', '.join(missing)}): remove it or evaluate again")
    return record


def _results(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations that stand for themselves, in order; without one, the last made during training."""
    own = [record for record in records if not record["name"].startswith(IN_TRAINING)]
    return sorted(own, key=_rank) if own else records[-1:]


def _labelled(records: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Where two runs have an evaluation of one name, the run's name tells them apart."""
    names = [record["name"] for record in records]
    return [
        record | {"label": f"{record['name']} {_name(record['folder'], folder)}"}
        if names.count(record["name"]) > 1
        else record
        for record in records
    ]


def _rank(record: Record) -> float:
    name = record["name"]
    return ORDER.index(name) if name in ORDER else ORDER.index("final") - 0.5


def _videos(record: Record) -> list[Path]:
    files = [record["folder"] / name for name in record.get("videos", ())]
    return [file for file in files if file.is_file()]


def _curves(run: Path, folder: Path, versions: Mapping[str, Any], records: Sequence[Record]) -> RunCurves:
    columns = read(run)
    success = columns.get("rollout/success")
    known = any(record["success"] for record in records) or (success is not None and bool((success > 0).any()))
    return RunCurves(_name(run, folder), columns, versions.get("verb", ""), known)


def _versions(run: Path) -> dict[str, Any]:
    file = run / "versions.json"
    try:
        return json.loads(file.read_bytes()) if file.exists() else {}
    except ValueError as error:
        raise RunError(f"{file} is damaged: remove it") from error


def _shared_versions(versions: Sequence[Mapping[str, Any]] | Any) -> dict[str, Any]:
    """Versions, machine and source of the latest run."""
    latest = max(versions, key=lambda v: v.get("opened", ""), default={})
    return {key: latest[key] for key in ("versions", "machine", "git") if latest.get(key)}


def _name(run: Path, folder: Path) -> str:
    return "" if run == folder else str(run.relative_to(folder))


def _title(rows: Sequence[Record], configs: Mapping[str, Any], versions: Any, folder: Path) -> str:
    ids = [row["env_id"] for row in rows] + [c["env"]["id"] for c in configs.values() if "id" in c.get("env", {})]
    env_id = ids[0] if ids else folder.name
    verbs = {v.get("verb") for v in versions}
    done = "fine-tuned" if "finetune" in verbs else "imitated" if "pretrain" in verbs else "evaluated"
    return f"{env_id}, {done}"


def _facts(rows: Sequence[Record], tracks: Sequence[RunCurves], versions: Any) -> list[str]:
    walls = [float(track.columns["wall"].max()) for track in tracks if len(track.columns["wall"])]
    steps = [float(t.columns["step"].max()) for t in tracks if len(t.columns["step"]) and t.verb != "pretrain"]
    latest = max(versions, key=lambda v: v.get("opened", ""), default={})
    machine = latest.get("machine", {})
    facts = [
        str(latest.get("opened", ""))[:10],
        f"{sum(steps):,.0f} environment steps" if steps else "",
        f"{duration(sum(walls))} of training" if walls else "",
        f"{sum(row['episodes'] for row in rows):,} episodes evaluated" if rows else "",
        f"{machine['cores']} cores, {machine['cpu']}" if machine else "",
    ]
    return [fact for fact in facts if fact]


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
