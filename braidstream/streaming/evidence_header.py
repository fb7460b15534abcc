"""The predictions that a dead letter of a deadline carries: sent back, the decision is made with them, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from confluent_kafka import Message
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from braidstream.deciding.join import MOST_MODELS
from braidstream.deciding.policy import Evidence
from braidstream.streaming.dead_letters import raw_headers

EVIDENCE = "braidstream.evidence"
"""JSON: a list of model, version and value for each prediction."""

_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Version = Annotated[str, Field(max_length=256)]
_LIST = TypeAdapter(Annotated[list[tuple[_Name, _Version, FiniteFloat]], Field(max_length=MOST_MODELS)])
"""What a prediction may hold, see `schemas.prediction`."""


def evidence_header(evidence: Sequence[Evidence]) -> tuple[str, bytes]:
    """The header that carries these."""
    return EVIDENCE, _LIST.dump_json(list(evidence))


def evidence_of(record: Message) -> list[Evidence] | None:
    """What a record carries; None when it has no such header, or one that this module did not write."""
    value = dict(raw_headers(record)).get(EVIDENCE)
    try:
        return [Evidence(*found) for found in _LIST.validate_json(value)] if value is not None else None
    except ValidationError:
        return None
