"""Titles and descriptions, put together from `topics.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RULES = ("nsfw", "violence", "spam")
"""The rules whose violation a text may hint at."""

_SLOT = re.compile(r"\{(\w+)\}")
_EVASIVE = 0.06
"""The share of harmful videos that are described as if they were harmless."""
_TEASED = 0.1
"""The share of descriptions that also name another video, of any topic."""
_FILLER = 0.35
"""The share of sentences that could stand below any video."""


@dataclass(frozen=True)
class Topic:
    """What a video may be about; `shares` is, for each rule, the share of its videos that break it."""

    category: str
    weight: float
    titles: Sequence[str]
    sentences: Sequence[str]
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Grammar:
    """Everything that texts are made of."""

    topics: Sequence[Topic]
    slots: Mapping[str, Sequence[str]]
    filler: Sequence[str]

    @property
    def harmless(self) -> Sequence[Topic]:
        """The topics that hint at no violation."""
        return [topic for topic in self.topics if max(topic.shares.values()) < 0.01]


class Text(NamedTuple):
    """The words of one video, and the rules that it breaks."""

    title: str
    description: str
    category: str
    violations: frozenset[str]


@cache
def grammar() -> Grammar:
    """What `topics.toml` says."""
    content = tomllib.loads((Path(__file__).parent / "topics.toml").read_text())
    topics = [_topic(topic, content["defaults"]) for topic in content["topic"]]
    return Grammar(topics, content["slots"], content["filler"]["sentences"])


def _topic(topic: Mapping[str, Any], defaults: Mapping[str, float]) -> Topic:
    shares = {rule: float(topic.get(rule, defaults[rule])) for rule in RULES}
    return Topic(topic["category"], topic["weight"], topic["titles"], topic["sentences"], shares)


def make_text(rng: np.random.Generator) -> Text:
    """The words of one more video."""
    known = grammar()
    topic = _choose(rng, known.topics)
    violations = frozenset(rule for rule, share in topic.shares.items() if rng.random() < share)
    told = known.harmless if violations and rng.random() < _EVASIVE else [topic]
    shown = told[int(rng.integers(len(told)))]
    sentences = [_sentence(rng, shown) for _ in range(rng.integers(1, 4))]
    if rng.random() < _TEASED:
        sentences.append(f"Next week: {_line(rng, _choose(rng, known.topics).titles)}.")
    return Text(_line(rng, shown.titles), " ".join(sentences), shown.category, violations)


def _choose(rng: np.random.Generator, topics: Sequence[Topic]) -> Topic:
    weights = np.array([topic.weight for topic in topics], np.float64)
    return topics[rng.choice(len(topics), p=weights / weights.sum())]


def _sentence(rng: np.random.Generator, topic: Topic) -> str:
    return _line(rng, grammar().filler if rng.random() < _FILLER else topic.sentences)


def _line(rng: np.random.Generator, lines: Sequence[str]) -> str:
    """One of the lines, its slots filled."""
    slots = grammar().slots

    def fill(match: re.Match[str]) -> str:
        values = slots[match[1]]
        return values[int(rng.integers(len(values)))]

    return _SLOT.sub(fill, lines[int(rng.integers(len(lines)))])
