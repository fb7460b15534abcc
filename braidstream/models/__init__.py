"""The models core: features, training, model folders and scoring. It imports nothing of Kafka."""

import os

# From version 1.31 on, ONNX Runtime reports its use to its maker unless this is set before it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
