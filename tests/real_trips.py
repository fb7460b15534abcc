"""The real months, which lie beside the repo where they are available."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "data"


def real_month(month: str) -> Path:
    """The green cabs' file of this month; skips the test where it is not there, or fails it with CI=true."""
    path = FOLDER / f"green_tripdata_{month}.parquet"
    if not path.is_file():
        reason = f"{path} is not there"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true requires every test, and {reason}", pytrace=False)
        pytest.skip(reason)
    return path
