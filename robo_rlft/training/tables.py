"""The look of tables in the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def default_console() -> Console:
    """As wide as the terminal; wide enough for whole lines where a program reads the output."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def make_table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column is never broken into lines."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold", style="bold" if i == 0 else "")
    return table


def literal(value: Any, style: str = "") -> Text:
    """Text as it stands: square brackets are no markup."""
    return Text(str(value), style=style)
