"""What the options of `python -m producer` take besides plain numbers and names."""

from __future__ import annotations

import math
import re
from datetime import datetime
from pathlib import Path

import click

from producer.pace import Rate
from producer.trips import named_month

_UNITS = {"s": 1, "m": 60, "h": 3600}
_CHANGE = re.compile(r"([0-9.]+)\.\.([0-9]+\.?[0-9]*)/([0-9.]+)([smh])")


def factor(text: str) -> float:
    """A number above 0; raises `click.BadParameter`, as all of these do."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise click.BadParameter(f"{text!r} is not a number above 0.")
    return value


def rate(text: str) -> Rate:
    """So many a second, as in 1000, or a change from one rate to another within a time, as in 100..2000/60s."""
    if ".." not in text:
        return Rate(factor(text), factor(text))
    change = _CHANGE.fullmatch(text)
    if change is None:
        raise click.BadParameter(f"{text!r} is no change of the rate: give it as in 100..2000/60s (s, m or h).")
    first, last, time, unit = change.groups()
    return Rate(factor(first), factor(last), factor(time) * _UNITS[unit])


def start(text: str) -> int | datetime:
    """A time in the city, without a zone, as in 2023-02-03T08:00, or a ride's number, which counts from 1."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a time, as in 2023-02-03T08:00, nor a ride's number from 1 on."
        ) from None
    if time.tzinfo is not None:
        raise click.BadParameter(f"{text!r} has a time zone: pickups are in the city's time, so give none.")
    return time


def month(text: str) -> str:
    """A month, as in 2023-02."""
    if named_month(Path(text)) != text:
        raise click.BadParameter(f"{text!r} is no month: give it as in 2023-02.")
    return text
