"""Runs a model, a policy or a handler as the service does, in memory and in milliseconds, with a clock to move.

    kit = ScorerKit(RIDES, predict=lambda rides: [ride.trip_distance or 0 for ride in rides], model="duration")
    [prediction] = kit.send(ride)

    kit = PolicyKit(RIDES, policy, expected=("duration", "tip"), deadline=30)
    kit.event(ride)
    kit.predict(ride.ride_id, "duration", 7.5)
    [decision] = kit.advance(seconds=30)

    kit = HandlerKit(VIDEOS, notify, writes=NOTIFICATIONS, once=NOTIFIED)
    notifications = kit.send(video)
    assert kit.send(video) == []

The worker is the real one, with its transactions, dead letters and changelog; only the broker is a fake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

from braidstream.avro import E
from braidstream.deciding.policy import Policy
from braidstream.pipelines import Pipeline, Topic
from braidstream.processors import decision_processor, handler_processor, scoring_processor
from braidstream.settings import DecisionSettings, HandlerSettings, WorkerSettings
from braidstream.streaming.handler import Handle, Out
from braidstream.streaming.processor import Processor
from braidstream.streaming.scoring import Predict, prediction_ids
from braidstream.testing.broker import FakeBroker
from braidstream.testing.worker import WorkerKit
from schemas.decision import Decision
from schemas.handled import Handled
from schemas.prediction import Prediction


class ScorerKit(WorkerKit[E]):
    """A model's worker: events in, predictions out.

    `settings` are those of `WorkerSettings`, by their Python names.
    """

    def __init__(
        self,
        pipeline: Pipeline[E],
        *,
        predict: Predict[E],
        model: str,
        version: str = "test",
        broker: FakeBroker | None = None,
        group: str = "kit",
        **settings: Any,
    ) -> None:
        self._predict = predict
        self._model = (model, version)
        super().__init__(pipeline, WorkerSettings(**settings), broker, group)

    @property
    def predictions(self) -> list[Prediction]:
        """Every prediction so far."""
        return self._read(self._pipeline.predictions)

    def send(self, *events: E) -> list[Prediction]:
        """Events, in this order; the predictions that they give."""
        return self._new(self._pipeline.predictions, lambda: self._write(self._pipeline.subjects, *events))

    def send_raw(self, key: bytes | None, value: bytes | None) -> list[Prediction]:
        """A record that may be no event."""
        return self._new(
            self._pipeline.predictions, lambda: self.broker.send(self._pipeline.subjects.name, key=key, value=value)
        )

    def _make_processor(self) -> Processor:
        return scoring_processor(
            self._pipeline,
            self._settings,
            self._schemas,
            self._group,
            self._predict,
            model=self._model,
            clock=self._milliseconds,
        )


class PolicyKit(WorkerKit[E]):
    """A decision service: events and predictions in, decisions out.

    `deadline` and `remember` are in seconds. `settings` are further ones of `DecisionSettings`, by their Python names.
    """

    def __init__(
        self,
        pipeline: Pipeline[E],
        policy: Policy[E],
        *,
        expected: Sequence[str],
        deadline: float = 30,
        remember: float = 3600,
        broker: FakeBroker | None = None,
        group: str = "kit",
        **settings: Any,
    ) -> None:
        self._policy = policy
        self._decision_settings = DecisionSettings(
            expected_models=tuple(expected), decision_deadline=deadline, remember=remember, **settings
        )
        super().__init__(pipeline, self._decision_settings, broker, group)

    @property
    def decisions(self) -> list[Decision]:
        """Every decision so far, revisions included."""
        return self._read(self._pipeline.decisions)

    def event(self, *events: E) -> list[Decision]:
        """Subjects' own events; the decisions that they lead to."""
        return self._new(self._pipeline.decisions, lambda: self._write(self._pipeline.subjects, *events))

    def predict(self, subject_id: str, model: str, value: float, version: str = "test") -> list[Decision]:
        """A prediction; the decisions that it leads to."""
        prediction = Prediction(
            prediction_id=bytes(prediction_ids([subject_id.encode()], model, version)).decode(),
            subject_id=subject_id,
            model=model,
            model_version=version,
            value=value,
            predicted_at=self.now,
        )
        return self._new(self._pipeline.decisions, lambda: self._write(self._pipeline.predictions, prediction))

    def send_raw(self, topic: Topic[Any], key: bytes | None, value: bytes | None) -> list[Decision]:
        """A record that may be no event."""
        return self._new(self._pipeline.decisions, lambda: self.broker.send(topic.name, key=key, value=value))

    def advance(self, seconds: float) -> list[Decision]:
        """Let time pass; the decisions that it leads to."""
        return self._new(self._pipeline.decisions, lambda: self.sleep(seconds))

    def _make_processor(self) -> Processor:
        return decision_processor(
            self._pipeline,
            self._decision_settings,
            self._schemas,
            self._group,
            self._policy,
            broker=self._state_broker(),
        )


class HandlerKit(WorkerKit[E], Generic[E, Out]):
    """A consumer with a handler of its own: subjects' events in, events of the topic `writes` out.

    `once` as in `run_handler`. `settings` are those of `HandlerSettings`, by their Python names.
    """

    def __init__(
        self,
        pipeline: Pipeline[E],
        handle: Handle[E, Out],
        *,
        writes: Topic[Out],
        once: Topic[Handled] | None = None,
        broker: FakeBroker | None = None,
        group: str = "kit",
        **settings: Any,
    ) -> None:
        self._handle = handle
        self._writes = writes
        self._once = once
        self._handler_settings = HandlerSettings(**settings)
        super().__init__(pipeline, self._handler_settings, broker, group)

    @property
    def outputs(self) -> list[Out]:
        """Every event that was written so far."""
        return self._read(self._writes)

    def send(self, *events: E) -> list[Out]:
        """Events, in this order; the events that they give."""
        return self._new(self._writes, lambda: self._write(self._pipeline.subjects, *events))

    def send_raw(self, key: bytes | None, value: bytes | None) -> list[Out]:
        """A record that may be no event."""
        return self._new(self._writes, lambda: self.broker.send(self._pipeline.subjects.name, key=key, value=value))

    def advance(self, seconds: float) -> list[Out]:
        """Let time pass; what is given meanwhile."""
        return self._new(self._writes, lambda: self.sleep(seconds))

    def _make_processor(self) -> Processor:
        return handler_processor(
            self._pipeline,
            self._handler_settings,
            self._schemas,
            self._group,
            self._handle,
            writes=self._writes,
            once=self._once,
            broker=self._state_broker(),
        )
