"""The bars that the figures are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import decisions, latency, poison, restart, rivals
from bench.measurements import Measurement, Spread, by_run, ratios
from bench.setting import AT_LEAST_ONCE, EXACTLY_ONCE, GUARANTEES


@dataclass(frozen=True)
class Bar:
    """A figure of a subject, or its ratio to that of another subject (`to`), and what it has to reach."""

    text: str
    part: str
    subject: str
    figure: str = "records_per_s"
    to: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether this value reaches the bar."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def limit(self) -> str:
        """The bar in words."""
        return f"at least {self.at_least:,g}" if self.at_least is not None else f"at most {self.at_most:,g}"

    def values(self, measurements: Sequence[Measurement]) -> list[float]:
        """The figure or the ratio, run by run; empty when it was not measured."""
        over = by_run(measurements, self.part, self.subject, self.figure)
        if self.to is None:
            return list(over.values())
        return ratios(over, by_run(measurements, self.part, self.to, self.figure))


@dataclass(frozen=True)
class Held:
    """A bar, what was measured, and whether its median reaches the bar."""

    bar: Bar
    spread: Spread
    met: bool


BARS = (
    Bar(
        "scoring exactly once / raw pass-through with transactions",
        "scoring",
        "duration, exactly once",
        to="pass-through, exactly once",
        at_least=0.65,
    ),
    Bar(
        "scoring at least once / exactly once",
        "scoring",
        "duration, at least once",
        to="duration, exactly once",
        at_least=1.0,
    ),
    Bar(
        "two workers / one, exactly once",
        "scoring",
        "duration, exactly once, 2 workers",
        to="duration, exactly once",
        at_least=1.4,
    ),
    Bar(
        "scoring by scikit-learn itself, exactly once, rides/s",
        "scoring",
        "duration by scikit-learn, exactly once",
        at_least=45_000,
    ),
    *(
        Bar(
            f"decisions with {count:,} open / raw pass-through with transactions",
            "decisions",
            decisions.subject(EXACTLY_ONCE, count),
            to="pass-through, exactly once",
            at_least=0.35,
        )
        for count in decisions.OPEN
    ),
    Bar(
        "bytes an open ride",
        "decisions",
        decisions.subject(EXACTLY_ONCE, decisions.OPEN[-1]),
        figure="bytes_per_open",
        at_most=1024,
    ),
    *(
        Bar(
            f"p99 at 1,000 rides/s to {to}, {guarantee}, ms",
            "latency",
            latency.subject(case, guarantee, 1_000, to),
            figure="p99_ms",
            at_most=milliseconds,
        )
        for case, to, guarantee, milliseconds in (
            (latency.ONE_MODEL, "prediction", EXACTLY_ONCE, 20),
            (latency.ONE_MODEL, "prediction", AT_LEAST_ONCE, 5),
            (latency.PIPELINE, "decision", EXACTLY_ONCE, 50),
            (latency.PIPELINE, "decision", AT_LEAST_ONCE, 12),
        )
    ),
    *(
        Bar(
            f"CPU of an idle worker, {guarantee}",
            "latency",
            latency.idle_subject(latency.PIPELINE, guarantee),
            figure="idle_cpu",
            at_most=0.02,
        )
        for guarantee in GUARANTEES
    ),
    *(
        Bar(
            f"ours / {peer}, {guarantee}",
            "peers",
            rivals.subject("duration", guarantee),
            to=rivals.subject(peer, guarantee),
            at_least=times,
        )
        for peer, times, guarantees in (
            ("kafka-streams", 2, (EXACTLY_ONCE,)),
            ("quix-onnx", 6, tuple(GUARANTEES)),
            ("quix-scikit-learn", 100, tuple(GUARANTEES)),
        )
        for guarantee in guarantees
    ),
    *(
        Bar(
            f"{poison.subject(name, small=small)} / clean",
            poison.PART,
            poison.subject(name, small=small),
            to=poison.subject(poison.CLEAN, small=small),
            at_least=0.5,
        )
        for small in (False, True)
        for name in (poison.FAILING, poison.BROKEN)
    ),
    Bar(
        f"latest decision of {restart.OPEN:,} after a crash, seconds after its deadline",
        restart.PART,
        restart.SUBJECT,
        figure="latest_s",
        at_most=10,
    ),
    Bar("producer, events/s", "producer", "python -m producer FILE", figure="printed_per_s", at_least=150_000),
)


def held(measurements: Sequence[Measurement]) -> Iterator[Held]:
    """Every bar that something was measured for."""
    for bar in BARS:
        if values := bar.values(measurements):
            spread = Spread.of(values)
            yield Held(bar, spread, bar.met_by(spread.median))
