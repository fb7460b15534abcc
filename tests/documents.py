"""The project's documents, taken apart: blocks of code, code within lines, commands, tables, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL_ENDS_AT = ("|", "&", ";", ">")


class Block(NamedTuple):
    """A block of code; `file` is the path that the paragraph before it begins with, if it does."""

    language: str
    code: str
    file: str


def blocks(document: Path) -> list[Block]:
    """The fenced blocks, in order."""
    text = document.read_text()
    return [Block(match[1], match[2], _file_before(text[: match.start()])) for match in _FENCED.finditer(text)]


def _file_before(text: str) -> str:
    match = re.match(r"`([\w./]+)` ", text.rstrip().rsplit("\n\n", 1)[-1])
    return match[1] if match else ""


def spans(document: Path) -> list[str]:
    """Code within lines."""
    prose = _FENCED.sub("", document.read_text())
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose)]


def commands(document: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Every command with something to run: the variables set for it, and its words without what a shell does."""
    lines = [line for block in blocks(document) if block.language == "sh" for line in block.code.splitlines()]
    for line in lines + spans(document):
        words = [word.removeprefix(".venv/bin/") for word in _words(line)]
        first = next((index for index, word in enumerate(words) if "=" not in word), len(words))
        if words[first : first + 1] in (["make"], ["python"], ["braidstream"], ["docker"]) and words[first + 1 :]:
            yield {name: value for name, _, value in (word.partition("=") for word in words[:first])}, words[first:]


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # an apostrophe: not a command
        return []
    return words[: min((index for index, word in enumerate(words) if word in _SHELL_ENDS_AT), default=len(words))]


def table(document: Path, above: str) -> list[tuple[str, ...]]:
    """The cells of the first table below a text, or of the one that begins with it."""
    match = re.search(r"^\|(?: --- \|)+\n((?:\|.*\n)+)", document.read_text().split(above, 1)[1], re.MULTILINE)
    assert match is not None, f"no table below {above!r}"
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in match[1].splitlines()]


def links(document: Path) -> list[str]:
    """The targets of its links."""
    return re.findall(r"\]\(([^)]+)\)", _FENCED.sub("", document.read_text()))


def anchors(document: Path) -> set[str]:
    """What a link may name of a document: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
