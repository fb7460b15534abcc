"""Where and with what was measured."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import confluent_kafka

_LIBRARIES = ("confluent-kafka", "fastavro", "numpy", "onnxruntime", "polars", "pydantic", "scikit-learn")


def context(kafka: str) -> dict[str, Any]:
    """The date, the machine and the versions; `kafka` is the broker's, which it does not tell its clients."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": model[1] if model else platform.machine(),
            "cores": os.cpu_count(),
            "memory_gb": round(memory / 1e9, 1),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "kafka": kafka,
            "librdkafka": confluent_kafka.libversion()[0],
            "python": platform.python_version(),
            **{name: version(name) for name in _LIBRARIES},
        },
    }
