"""The predictions that a dead letter of a decision carries: sent back, the decision is made with them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from confluent_kafka import Message

from braidstream.deciding.policy import Evidence
from braidstream.streaming.dead_letters import raw_headers

EVIDENCE = "braidstream.evidence"
"""JSON: a list of model, version and value for each prediction."""


def evidence_header(evidence: Sequence[Evidence]) -> tuple[str, bytes]:
    """The header that carries these."""
    return EVIDENCE, json.dumps(evidence).encode()


def evidence_of(record: Message) -> list[Evidence]:
    """What a record carries: nothing when it has no such header, or one that this module did not write."""
    value = dict(raw_headers(record)).get(EVIDENCE)
    try:
        return [
            Evidence(str(model), str(version), float(number)) for model, version, number in json.loads(value or b"[]")
        ]
    except (ValueError, TypeError):
        return []
