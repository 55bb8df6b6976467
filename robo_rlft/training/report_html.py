"""The sections of a report as HTML. `report.html` beside this file is their frame and style sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robo_rlft.training.chart import Chart
from robo_rlft.training.curves import Curves
from robo_rlft.training.progress import duration
from robo_rlft.training.statistics import Interval
from robo_rlft.training.video import data_uri

Record = Mapping[str, Any]
"""One evaluation: `name, env_id, episodes, success, return, per_seed, wall_seconds, videos`; intervals are dicts."""
PER_CENT = "\u202f%"
"""With a narrow space at which no line breaks."""
EMBEDDED_BYTES = 24_000_000
"""Videos beyond this many bytes stay out of the page, so that a phone can open it."""


def header(title: str, facts: Sequence[str], verdict: str) -> str:
    """Title, one line of facts, and the result as a sentence."""
    line = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    sentence = f'<p class="verdict">{escape(verdict)}</p>' if verdict else ""
    return f'<header><h1>{escape(title)}</h1><p class="facts">{line}</p>{sentence}</header>'


def cards(records: Sequence[Record], focus: Record | None) -> str:
    """One headline number with its interval per evaluation; those called like `focus` stand out."""
    if not records:
        return ""
    scale, name = _Scale(records), focus["name"] if focus else None
    return '<div class="cards">' + "".join(_card(r, scale, r["name"] == name) for r in records) + "</div>"


def films(columns: Sequence[tuple[Record, Sequence[Path]]]) -> str:
    """Videos: one card per episode, with what every policy made of it side by side.

    Args:
        columns: evaluations in order, each with its video files; video i shows episode i.
    """
    columns = [(record, files) for record, files in columns if files]
    episodes, left_out = _within_budget(columns)
    if not episodes:
        return ""
    hint = f'<p class="hint">{left_out} more in the videos folder.</p>' if left_out else ""
    shown = "".join(_films_of(episode, films) for episode, films in episodes.items())
    title = "Before and after" if len(columns) > 1 else "Episodes"
    kind = "pairs" if len(columns) > 1 else "singles"
    return section(title, f'<div class="films {kind}">{shown}</div>{hint}')


def curves(charts: Curves) -> str:
    """The main charts, over steps or over time, with the small ones beneath and the rest folded."""
    main = "".join(_both_axes(charts))
    small = "".join(f'<div class="card">{html}</div>' for chart in charts.small if (html := chart.html()))
    more = "".join(html for chart in charts.more if (html := chart.html()))
    body = main + (f'<div class="small">{small}</div>' if small else "")
    if more:
        body += folded("More curves", f'<div class="small">{more}</div>')
    return f'<section class="curves"><h2>Learning</h2>{body}</section>' if body else ""


def sweeps(charts: Sequence[Chart]) -> str:
    """Scores over settings of the acting policy."""
    body = "".join(f'<div class="card">{html}</div>' for chart in charts if (html := chart.html()))
    return section("How it acts", f'<div class="small">{body}</div>') if body else ""


def strips(records: Sequence[Record]) -> str:
    """One cell per episode: the same seed stands at the same place for every policy."""
    shown = [record for record in records if record["per_seed"]]
    if not shown:
        return ""
    returns = [row["return"] for record in shown for row in record["per_seed"]]
    low, high = min(returns), max(returns)
    rows = "".join(_strip(record, min(low, 0.0), high) for record in shown)
    how = "filled is a success" if shown[0]["success"] else "height is the return"
    hint = f'<p class="hint">One cell per episode, the same starting seed in the same place; {how}.</p>'
    return section("Every episode", f'<div class="card strips">{rows}{hint}</div>')


def table(records: Sequence[Record]) -> str:
    """All evaluations with intervals."""
    if not records:
        return ""
    success = any(record["success"] for record in records)
    names = ["Policy", "Episodes", *(["Success"] if success else []), "Return", "Length", "Environment steps", "Time"]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = [row for record in records for row in (record, *by_variant(record))]
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _row(r, success))}</tr>" for r in rows)
    hint = '<p class="hint">In brackets: 95 % intervals, Wilson for success, bootstrap for the return.</p>'
    inner = f'<div class="card scroll"><table><tr>{head}</tr>{body}</table></div>{hint}'
    return section("Evaluation", inner)


def notes(lines: Sequence[str]) -> str:
    """Remarks as a list."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return section("Notes", f'<ul class="notes">{items}</ul>') if items else ""


def settings(configs: Mapping[str, Mapping[str, Any]], versions: Mapping[str, Any]) -> str:
    """Settings and versions, folded."""
    parts = [
        folded(f"Settings{f' of {name}' if name else ''}", f"<pre>{escape(_yaml(config))}</pre>")
        for name, config in configs.items()
        if config
    ]
    if versions:
        parts.append(folded("Versions and machine", f"<pre>{escape(_yaml(versions))}</pre>"))
    return section("How it was made", "".join(parts)) if parts else ""


def section(title: str, body: str) -> str:
    """A titled section."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def folded(title: str, body: str) -> str:
    """A section the reader opens."""
    return f'<details class="card"><summary>{escape(title)}</summary>{body}</details>'


def label(record: Record) -> str:
    """How an evaluation is called on the page."""
    words = str(record.get("label") or record["name"]).replace("_", " ").split(" ")
    return " ".join("BC" if word == "bc" else word for word in words)


def headline(record: Record) -> tuple[Interval, bool]:
    """The figure that matters of an evaluation, and whether it is a success rate."""
    if record["success"]:
        return Interval(**record["success"]), True
    return Interval(**record["return"]), False


def by_variant(record: Record) -> list[Record]:
    """The figures of each of the environment's variants as records of their own; none where it has one."""
    seeds = record["per_seed"]
    return [
        {
            **{key: value for key, value in record.items() if key not in ("label", "videos", "variants")},
            **row,
            "name": f"{label(record)}, {row['variant']}",
            "per_seed": [seed for seed in seeds if seed["variant"] == row["variant"]],
        }
        for row in record.get("variants", ())
    ]


def figure(value: float, share: bool) -> str:
    """A success rate in per cent, or a return."""
    if share:
        return f"{100 * value:.1f}{PER_CENT}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class _Scale:
    """The common axis of the interval bars: 0 to 100 % for success, else 0 to the largest upper limit."""

    def __init__(self, records: Sequence[Record]) -> None:
        intervals = [headline(record) for record in records]
        share = all(is_share for _, is_share in intervals)
        self.low = min(0.0, *(interval.low for interval, _ in intervals))
        self.high = 1.0 if share else max(interval.high for interval, _ in intervals)

    def at(self, value: float) -> float:
        return 100 * (value - self.low) / ((self.high - self.low) or 1.0)


def _card(record: Record, scale: _Scale, focus: bool) -> str:
    value, share = headline(record)
    number = figure(value.mean, share).replace(PER_CENT, " <small>%</small>")
    left, right = scale.at(value.low), scale.at(value.high)
    bar = (
        f'<div class="track"><i style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<b style="left:{scale.at(value.mean):.1f}%"></b></div>'
    )
    kind = "success" if share else "return"
    limits = f"{figure(value.low, share).removesuffix(PER_CENT)} to {figure(value.high, share)}"
    note = f"{kind}, 95 % interval {limits}, {record['episodes']} episodes"
    return (
        f'<div class="card{" last" if focus else ""}"><div class="name">{escape(label(record))}</div>'
        f'<div class="value">{number}</div>{bar}<div class="note">{note}</div></div>'
    )


def _within_budget(
    columns: Sequence[tuple[Record, Sequence[Path]]],
) -> tuple[dict[int, list[tuple[Record, Path]]], int]:
    """Videos by episode as far as the page may grow, and how many stay out."""
    longest = max((len(files) for _, files in columns), default=0)
    places = [(i, record, files[i]) for i in range(longest) for record, files in columns if i < len(files)]
    total = np.cumsum([file.stat().st_size for _, _, file in places])
    episodes: dict[int, list[tuple[Record, Path]]] = {}
    kept = places[: int(np.searchsorted(total, EMBEDDED_BYTES, side="right"))]
    for i, record, file in kept:
        episodes.setdefault(i, []).append((record, file))
    return episodes, len(places) - len(kept)


def _films_of(episode: int, shown: Sequence[tuple[Record, Path]]) -> str:
    return f'<div class="card">{"".join(_film(record, file, episode) for record, file in shown)}</div>'


def _film(record: Record, file: Path, episode: int) -> str:
    name = escape(label(record))
    return (
        f'<figure><video src="{data_uri(file)}" autoplay muted loop playsinline controls aria-label="{name}"></video>'
        f'<figcaption class="label">{name}{_outcome(record, episode)}</figcaption></figure>'
    )


def _outcome(record: Record, episode: int) -> str:
    if episode >= len(record["per_seed"]):
        return ""
    row = record["per_seed"][episode]
    detail = f"seed {row['seed']}, {row['length']} steps"
    if not record["success"]:
        return f"<span>{detail}, return {row['return']:.4g}</span>"
    mark = "yes" if row["success"] else "no"
    return f': <b class="mark {mark}">{"succeeds" if row["success"] else "fails"}</b><span>{detail}</span>'


def _both_axes(charts: Curves) -> Iterator[str]:
    steps, walls = ([html for chart in group if (html := chart.html())] for group in (charts.by_step, charts.by_wall))
    if not steps:
        return
    if walls:
        yield (
            '<div class="axis"><label><input type="radio" name="axis" id="axis-step" checked>over steps</label>'
            '<label><input type="radio" name="axis" id="axis-wall">over time</label></div>'
        )
    yield from (f'<div class="card main by-step">{html}</div>' for html in steps)
    yield from (f'<div class="card main by-wall">{html}</div>' for html in walls)


def _strip(record: Record, low: float, high: float) -> str:
    rows = sorted(record["per_seed"], key=lambda row: row["seed"])
    value, share = headline(record)
    cells = "".join(_cell(row, i, share, low, high) for i, row in enumerate(rows))
    svg = f'<svg viewBox="0 0 {len(rows)} 1" preserveAspectRatio="none" role="img">{cells}</svg>'
    name = f"<span>{escape(label(record))}</span><span>{figure(value.mean, share)}</span>"
    return f'<div class="strip"><div class="label">{name}</div>{svg}</div>'


def _cell(row: Mapping[str, Any], i: int, share: bool, low: float, high: float) -> str:
    title = f"seed {row['seed']}: return {row['return']:.4g}, {row['length']} steps"
    if share:
        outcome = "success" if row["success"] else "failure"
        kind = "yes" if row["success"] else "no"
        return f'<rect class="{kind}" x="{i}" width="1" height="1"><title>{title}, {outcome}</title></rect>'
    level = (row["return"] - low) / ((high - low) or 1.0)
    return (
        f'<rect class="base" x="{i}" width="1" height="1"/>'
        f'<rect class="level" x="{i}" y="{1 - level:.3f}" width="1" height="{level:.3f}"><title>{title}</title></rect>'
    )


def _row(record: Record, success: bool) -> list[str]:
    lengths = [row["length"] for row in record["per_seed"]]
    steps = record.get("env_steps")
    cells = [f'<span class="label">{escape(label(record))}</span>', f"{record['episodes']:,}"]
    if success:
        cells.append(_with_interval(record["success"], True))
    return [
        *cells,
        _with_interval(record["return"], False),
        f"{np.mean(lengths):.0f}" if lengths else "",
        f"{steps:,}" if steps else "",
        duration(record["wall_seconds"]),
    ]


def _with_interval(value: Mapping[str, float] | None, share: bool) -> str:
    if value is None:
        return ""
    low, high = (figure(value[end], share).removesuffix(PER_CENT) for end in ("low", "high"))
    return f"{figure(value['mean'], share)} <small>[{low}, {high}]</small>"


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True).rstrip()
