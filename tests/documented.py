"""Where the commands of the README and of the pages in docs/ are run, as they stand there.

`at_the_desk` gives those that need no entry here: `tests/integration/test_documented.py` types them, in the order of
the documents, beside workers on a real broker. So a new command is run without anything else being done, unless it
begins with `docker` or `make`, or cannot be run there: then it belongs into one of these tables.
`tests/unit/test_docs.py` fails when it is in none of them, or when a table has what no document says any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.documents import README, ROOT, blocks, spans

PAGES: Final = [README, *sorted((ROOT / "docs").glob("*.md"))]

FOLLOWED: Final = ("docs/add-a-model.md", "docs/add-a-pipeline.md")
"""From the first command to the last: tests/unit/test_docs_examples.py."""

STARTED_FROM: Final = "braidstream topics create"
"""The block of the README that has it starts everything that the other commands look at."""

IN_COMPOSE: Final = (
    "docker compose up --build --wait",
    "docker compose run --rm producer /data/trips.parquet --rate 1000",
    "docker compose up --wait --no-recreate --scale duration=3 --scale tip=2 --scale decision=2",
    "docker compose run --rm cli tail decisions --from-beginning --limit 5",
    "docker compose logs -f decision",
    "docker compose exec duration braidstream health",
    "docker compose run --rm cli doctor",
    "docker compose stop duration",
    "docker compose start duration",
    "docker compose restart duration",
    "docker compose down --volumes",
)
"""Typed by tests/e2e/test_compose.py, which says so itself when it has left one out."""

_RESCORED: Final = (
    "tests/integration/test_rescore.py::test_a_new_version_scores_again_and_revises_only_what_missed_the_model"
)
_TRACED: Final = "tests/unit/test_tracing.py::test_producer_and_worker_send_spans_to_where_the_environment_says"
ELSEWHERE: Final[Mapping[str, str]] = {
    "KAFKA_BOOTSTRAP_SERVERS=localhost:9092 make demo": "tests/integration/test_documented.py::test_the_demo_on_kafka",
    "KAFKA_BOOTSTRAP_SERVERS=localhost:9092 make demo-moderation": (
        "tests/integration/test_moderation_demo.py::test_the_demo_on_kafka"
    ),
    ".venv/bin/braidstream demo --plain": "tests/unit/test_demo.py::test_every_ride_is_predicted_and_decided",
    "make demo TRIPS=data/green_tripdata_2023-02.parquet RIDES=20000": (
        "tests/integration/test_documented.py::test_the_demo_on_kafka"
    ),
    ".venv/bin/braidstream demo --json": "tests/unit/test_demo.py::test_every_ride_is_predicted_and_decided",
    "python -m producer data/green_tripdata_2023-02.parquet --loop --rate 100..2000/10m": (
        "tests/unit/test_producer_cli.py::test_a_loop_repeats_the_rides_under_new_ids"
    ),
    "python -m consumers.duration.train --trips data/green_tripdata_2023-01.parquet "
    "--evaluate data/green_tripdata_2023-02.parquet": (
        "tests/unit/test_training_rides.py::test_the_command_trains_once_and_measures_another_month"
    ),
    "docker compose run --rm train python -m consumers.duration.train --trips /data/green_tripdata_2023-02.parquet "
    "--force": "tests/unit/test_training_rides.py::test_the_command_trains_once_and_measures_another_month",
    "braidstream doctor": "tests/integration/test_doctor.py::test_groups_that_work",
    "braidstream doctor --json | jq -r 'select(.level == \"wrong\").mend[]'": (
        "tests/unit/test_doctor.py::test_the_exit_code_says_whether_something_is_wrong"
    ),
    "braidstream top --pipeline moderation.pipeline:MODERATION --every 5": (
        "tests/integration/test_top.py::test_groups_and_rates_in_transactions"
    ),
    "braidstream top --json | jq -c '[.at, .open.decisions, .latency_ms.p99]'": (
        "tests/unit/test_cli_top.py::test_what_is_written_is_told"
    ),
    "export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318": _TRACED,
    "python -m consumers.duration": _TRACED,
    "braidstream rescore --group duration --from 2h --dry-run": _RESCORED,
    "docker compose run --rm cli rescore --group duration --from 1h": _RESCORED,
    "braidstream dlq replay --group duration --reason ValueError": (
        "tests/integration/test_dlq.py::test_on_a_terminal_it_asks_first"
    ),
}
"""By a test of its own: with fewer rides, or other files."""

NOT_RUN: Final[Mapping[str, str]] = {
    "docker compose --profile moderation up --build --wait": "a second stack, for which CI has no time",
    "docker compose run --rm uploads --count 1000 --rate 50": "needs that stack",
    "docker compose exec moderation braidstream tail video_decisions --pipeline moderation.pipeline:MODERATION "
    "--to-end --limit 5": "needs that stack",
    "docker compose --profile moderation down": "needs that stack",
    "docker run --rm -d -p 16686:16686 -p 4318:4318 jaegertracing/jaeger": "fetches a collector; tests have their own",
    "bench/peers/setup": "fetches a JDK, Maven and other frameworks",
    "make bench JSON=report.json": "takes more than an hour",
    "make bench-quick": "takes two minutes, with nothing else on the machine",
    "python -m bench poison restart --rides 400000 --runs 5": "takes minutes; the parts are tested by themselves",
    "make chaos GUARANTEE=at_least_once": "takes ten minutes",
    "make chaos SEED=20261121 MARKDOWN=report.md": "takes ten minutes; tests/integration/test_chaos.py runs a part",
}
"""And why; `make` and click are asked whether there is such a command with such options all the same."""

_PROGRAM = re.compile(r"(\w+=\S+ )*(\.venv/bin/)?(make|docker|braidstream|python -m) ")
_PLACEHOLDER = re.compile(r"…|\.\.\.|(^|[ :])[A-Z_]{2,}( |$)")


def typed() -> list[str]:
    """Every command that is to be typed once: the lines of shell blocks, and within prose those with an option."""
    found = [
        line
        for page in PAGES
        if str(page.relative_to(ROOT)) not in FOLLOWED
        for line in [*in_blocks(page), *(span for span in spans(page) if _is_whole(span))]
    ]
    return list(dict.fromkeys(found))


def in_blocks(page: Path) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.code.splitlines()]
    return [line for line in (re.sub(r"(^|\s+)# .*$", "", line) for line in lines) if line]


def _is_whole(span: str) -> bool:
    has_option = re.search(r" --\w| [A-Z]+=", span) is not None
    return _PROGRAM.match(span) is not None and has_option and _PLACEHOLDER.search(span) is None


def start() -> list[str]:
    """The lines of the block that starts everything."""
    for block in blocks(README):
        if STARTED_FROM in block.code:
            return block.code.splitlines()
    raise AssertionError(f"the README has no block with {STARTED_FROM}")


def at_the_desk() -> list[str]:
    """The commands that are typed on a machine where all is started."""
    others = {*IN_COMPOSE, *ELSEWHERE, *NOT_RUN, *start()}
    return [line for line in typed() if line not in others]
