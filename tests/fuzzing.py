"""Records with something wrong with them, for every topic that a worker reads: the same ones for the same seed.

Good records are between them, so that it shows when one costs its neighbours something.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from braidstream.avro import AvroSchema, EventType, write
from braidstream.pipelines import Topic
from braidstream.streaming.ports import Headers
from rides.pipeline import RIDES
from tests.unit.events import prediction, ride
from tests.unit.test_intake import CASES, Case, Sender

_CHAIN = {
    "name": "chain",
    "default": None,
    "type": ["null", {"type": "record", "name": "Link", "fields": [{"name": "next", "type": ["null", "Link"]}]}],
}
"""A field that is nested as deep as one likes: 100,000 deep, it has ended fastavro with a segmentation fault."""
_EXTRA = {
    "name": "extra",
    "default": {},
    "type": {
        "type": "map",
        "values": {
            "type": "array",
            "items": [
                "null",
                "bytes",
                {"type": "record", "name": "Extra", "fields": [{"name": "when", "type": ["null", "double"]}]},
            ],
        },
    },
}
_HUGE = 200_000
"""Bytes: a fifth of what a topic takes."""


class Sent(NamedTuple):
    """A record to be sent. What is `good` has an event of its own, whose key begins with `good-`."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    good: bool


def with_odd_versions(topic: Topic[Any]) -> Topic[Any]:
    """The topic with two more versions of its schema: one that nobody should read, and one that is merely odd."""
    *older, latest = topic.event_type.versions
    odd = []
    for field in (_CHAIN, _EXTRA):
        schema = json.loads(latest.text)
        schema["fields"].append(field)
        odd.append(AvroSchema.from_text(json.dumps(schema)))
    return Topic(topic.name, EventType(topic.event_type.model, (*older, *odd, latest)), topic.key)


SUBJECTS = with_odd_versions(CASES["ride_started"].topic)
PREDICTIONS = with_odd_versions(CASES["predictions"].topic)


class Fuzz:
    """Makes records of a topic."""

    def __init__(self, topic: Topic[Any], seed: int) -> None:
        self._topic = topic
        self._random = Random(f"{topic.name} {seed}")
        case = CASES[topic.name]
        self._sender = Sender(Case(topic, case.events, case.invalid))
        self._damage: Sequence[Callable[[Any], Sent]] = (
            *[self._mutated] * 12,
            *[self._huge] * 1,
            *[self._odd] * 2,
            *[self._with_odd_headers] * 2,
        )

    def records(self, count: int, good: Sequence[Any]) -> list[Sent]:
        """So many records with something wrong with them, and the good events between them, each once and in order."""
        damaged = [self._random.choice(self._damage)(self._event(number)) for number in range(count)]
        places = sorted(self._random.sample(range(count + len(good)), len(good)))
        sent: list[Sent] = damaged
        for place, event in zip(places, good, strict=True):
            sent.insert(place, self._good(event))
        return sent

    def _event(self, number: int) -> Any:
        name = f"odd-{number}"
        if self._topic.name == RIDES.subjects.name:
            return ride(name, trip_distance=self._random.uniform(0, 50))
        return prediction(name, model=self._random.choice(["duration", "tip", "weather"]))

    def _good(self, event: Any) -> Sent:
        message = self._sender.record(event)
        return Sent(message.key(), message.value(), [], good=True)

    def _mutated(self, event: Any) -> Sent:
        message = self._sender.mutated(event, self._random, 0)
        return Sent(message.key(), message.value(), [], good=False)

    def _huge(self, event: Any) -> Sent:
        """A text that goes on and on: of the key, of another field, or where there should be none."""
        text = self._random.choice(["x", "é", "\N{TAXI}", "\x00", "\ud7ff"]) * (_HUGE // 4)
        fields = [name for name, value in event if isinstance(value, str)]
        other = event.model_copy(update={self._random.choice(fields): text})
        message = self._sender.record(other)
        value = self._random.choice([message.value(), text.encode(), (message.value() or b"")[:5] + text.encode()])
        return Sent(message.key(), value, [], good=False)

    def _odd(self, event: Any) -> Sent:
        """Another version of the schema: nested deep, or with what is left out, or what claims to be one of them."""
        random = self._random
        chain, extra = self._topic.event_type.versions[-3:-1]
        deep = write(chain.local_id, chain, event.model_dump() | {"chain": None})[:-1]
        deep += b"\x02" * random.choice([0, 1, 50, 100_000]) + b"\x00"
        items = [[None, b"x" * random.randrange(99), {"when": 0.5}] * random.randrange(9) for _ in range(3)]
        wide = write(
            extra.local_id,
            extra,
            event.model_dump() | {"extra": {f"n{number}": item for number, item in enumerate(items)}},
        )
        value = random.choice([deep, wide, wide, wide])
        at = random.randrange(5, len(value))
        value = random.choice([value, value, value[:at], value[:at] + b"\xff" * 5 + value[at:]])
        return Sent(self._topic.key_of(event).encode(), value, [], good=False)

    def _with_odd_headers(self, event: Any) -> Sent:
        """A record that may be good, with headers that nobody should trust."""
        random = self._random
        odd: Headers = [
            ("", b""),
            ("null", None),
            ("traceparent", b"\xff\x00" * random.randrange(100)),
            ("__connect.errors.topic", b"somewhere"),
            ("__connect.errors.partition", b"-7"),
            ("__connect.errors.stage", None),
            ("source.offset", b"not a number"),
            ("source.topic", None),
            ("\N{TAXI}" * 50, random.randbytes(5000)),
        ]
        damaged = random.choice([self._good, self._mutated])(event)
        return damaged._replace(headers=random.choices(odd, k=random.randrange(1, 30)), good=False)
