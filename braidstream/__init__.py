"""Machine-learning models on Kafka: all that an application needs to name.

Further public modules are `braidstream.training` (making models), `braidstream.testing` (the test kit), and for an
application's own commands `braidstream.cli`, `braidstream.logs` and `braidstream.demo`. Everything else may change
without notice.

A name is imported when it is first asked for, so that a program loads what it uses and no more.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braidstream.avro import EventType
    from braidstream.columns import Columns
    from braidstream.deciding.policy import Evidence, Known, Policy, Verdict
    from braidstream.errors import BraidstreamError, FatalError, RetriableError, SettingsError
    from braidstream.events import Events
    from braidstream.models.features import FeatureSet, Matrix
    from braidstream.models.loading import load_model
    from braidstream.models.scorer import Scorer
    from braidstream.pipelines import Pipeline, Topic, changelog, pipeline
    from braidstream.run import run_decisions, run_handler, run_scorer
    from braidstream.settings import (
        DecisionSettings,
        HandlerSettings,
        ModelNames,
        ScoringSettings,
        Settings,
        WorkerSettings,
    )
    from braidstream.streaming.handler import Handle
    from braidstream.writer import EventWriter, open_writer
    from schemas.decision import Decision
    from schemas.event import Event
    from schemas.prediction import Prediction

__all__ = [
    "BraidstreamError",
    "Columns",
    "Decision",
    "DecisionSettings",
    "Event",
    "EventType",
    "EventWriter",
    "Events",
    "Evidence",
    "FatalError",
    "FeatureSet",
    "Handle",
    "HandlerSettings",
    "Known",
    "Matrix",
    "ModelNames",
    "Pipeline",
    "Policy",
    "Prediction",
    "RetriableError",
    "Scorer",
    "ScoringSettings",
    "Settings",
    "SettingsError",
    "Topic",
    "Verdict",
    "WorkerSettings",
    "changelog",
    "load_model",
    "open_writer",
    "pipeline",
    "run_decisions",
    "run_handler",
    "run_scorer",
]

_NAMES = {
    "braidstream.avro": ("EventType",),
    "braidstream.columns": ("Columns",),
    "braidstream.deciding.policy": ("Evidence", "Known", "Policy", "Verdict"),
    "braidstream.errors": ("BraidstreamError", "FatalError", "RetriableError", "SettingsError"),
    "braidstream.events": ("Events",),
    "braidstream.models.features": ("FeatureSet", "Matrix"),
    "braidstream.models.loading": ("load_model",),
    "braidstream.models.scorer": ("Scorer",),
    "braidstream.pipelines": ("Pipeline", "Topic", "changelog", "pipeline"),
    "braidstream.run": ("run_decisions", "run_handler", "run_scorer"),
    "braidstream.settings": (
        "DecisionSettings",
        "HandlerSettings",
        "ModelNames",
        "ScoringSettings",
        "Settings",
        "WorkerSettings",
    ),
    "braidstream.streaming.handler": ("Handle",),
    "braidstream.writer": ("EventWriter", "open_writer"),
    "schemas.decision": ("Decision",),
    "schemas.event": ("Event",),
    "schemas.prediction": ("Prediction",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
