"""Shows views in place of what is on the terminal, and gives the terminal back as it was."""

from __future__ import annotations

from collections.abc import Callable

import click
from rich.console import Console
from rich.live import Live

from braidstream.dashboard.render import Dashboard
from braidstream.dashboard.view import View


def can_show(console: Console) -> bool:
    """Whether this console is a terminal on which lines can be written over."""
    return console.file.isatty() and not console.is_dumb_terminal


class Terminal:
    """The alternate screen of a terminal, from the first view until it is closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._size = console.size

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def show(self, view: View) -> None:
        """Show this view from now on."""
        self._live.start()
        self._size = self._console.size
        self._live.update(Dashboard(view), refresh=True)

    def adapt(self) -> None:
        """Show the same view again if the terminal has another size by now."""
        if self._console.size != self._size:
            self._size = self._console.size
            self._live.refresh()


class Lines:
    """A line for each view on stdout, for pipes and terminals that can show nothing else."""

    def __init__(self, text: Callable[[View], str]) -> None:
        self._text = text

    def close(self) -> None:
        """There is nothing to give back."""

    def show(self, view: View) -> None:
        """Print it."""
        click.echo(self._text(view))

    def adapt(self) -> None:
        """Lines have no size."""
