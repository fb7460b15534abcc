"""What a pipeline is made of: its topics, what is in them, and how they are keyed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic

import schemas
from braidstream.avro import E, EventType
from braidstream.errors import SettingsError
from schemas.decision import Decision
from schemas.decision_state import DecisionState
from schemas.handled import Handled
from schemas.prediction import Prediction

_SCHEMAS = Path(schemas.__file__).parent


@dataclass(frozen=True)
class Topic(Generic[E]):
    """A topic of one event type; `key` names the event's field that is the record's key.

    `config` are the settings it is created with, by Kafka's names. Raises `SettingsError` when there is no such field.
    """

    name: str
    event_type: EventType[E]
    key: str
    config: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        fields = self.event_type.model.model_fields
        if self.key not in fields:
            raise SettingsError(
                f"the topic {self.name} is keyed by {self.key!r}, which is no field of "
                f"{self.event_type.model.__name__}: it has {', '.join(fields)}"
            )

    def key_of(self, event: E) -> str:
        """The key of the record that holds this event."""
        return str(getattr(event, self.key))


_CHANGELOG = {
    "cleanup.policy": "compact",
    "segment.bytes": str(50 * 1024 * 1024),
    "segment.ms": str(10 * 60 * 1000),
    "min.cleanable.dirty.ratio": "0.2",
}


@dataclass(frozen=True)
class Pipeline(Generic[E]):
    """One event, many models, one decision: the topics that the parts of a pipeline share.

    `subjects` is the topic that each subject begins in, for example `ride_started`. `others` are what consumers write
    and keep besides.
    """

    subjects: Topic[E]
    predictions: Topic[Prediction]
    decisions: Topic[Decision]
    decision_state: Topic[DecisionState]
    dead_letters: str
    others: tuple[Topic[Any], ...] = ()

    @property
    def topics(self) -> tuple[Topic[Any], ...]:
        """Every topic that holds Avro events."""
        return (self.subjects, self.predictions, self.decisions, self.decision_state, *self.others)


def pipeline(
    subjects: Topic[E],
    *,
    predictions: str = "predictions",
    decisions: str = "decisions",
    decision_state: str = "decision_state",
    dead_letters: str = "dead_letters",
    others: Sequence[Topic[Any]] = (),
) -> Pipeline[E]:
    """A pipeline around the topic that its subjects begin in; name the other topics where two share a broker.

    `others` are further topics: they are created, checked, and known to `braidstream tail` as these are. Raises
    `SettingsError` when two topics have one name.
    """
    made = Pipeline(
        subjects=subjects,
        predictions=Topic(predictions, EventType.load(Prediction, "prediction", _SCHEMAS), "subject_id"),
        decisions=Topic(decisions, EventType.load(Decision, "decision", _SCHEMAS), "subject_id"),
        decision_state=Topic(
            decision_state, EventType.load(DecisionState, "decision_state", _SCHEMAS), "subject_id", _CHANGELOG
        ),
        dead_letters=dead_letters,
        others=tuple(others),
    )
    names = Counter([*(topic.name for topic in made.topics), dead_letters])
    if twice := [name for name, count in names.items() if count > 1]:
        raise SettingsError(f"two topics of the pipeline are named {twice[0]}: give each a name of its own")
    return made


def changelog(name: str) -> Topic[Handled]:
    """A topic that a consumer keeps in which subjects it has handled, for `run_handler`: one for each such consumer."""
    return Topic(name, EventType.load(Handled, "handled", _SCHEMAS), "subject_id", _CHANGELOG)
