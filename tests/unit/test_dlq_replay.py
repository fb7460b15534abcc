"""Dead letters that are sent back: processed by their group alone, each sent once, whatever fails meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count

import pytest
from confluent_kafka import KafkaError, Message

from braidstream.deciding.policy import Evidence, Known, Verdict
from braidstream.errors import FatalError, FencedError, PoisonRecord, UnavailableError
from braidstream.events import Events
from braidstream.streaming.dead_letters import PREFIX, REPLAY, addressed, dead_letter, raw_headers
from braidstream.streaming.evidence_header import EVIDENCE, evidence_header, evidence_of
from braidstream.streaming.ports import Headers, Partition
from braidstream.streaming.replay import AT_ONCE, Letter, Place, Replay, obstacle, replayed_by, sent_back
from braidstream.testing.broker import FakeBroker
from braidstream.testing.kit import PolicyKit, ScorerKit
from rides.pipeline import RIDES
from schemas.ride_started import RideStarted
from tests.unit.events import ride

LETTERS = "dead_letters"
PARTITIONS = {"ride_started": 4, "predictions": 4}
EXPECTED = ("duration", "tip")
_numbers = count()


class Model:
    """Raises for the rides with these names."""

    def __init__(self, *bad: str) -> None:
        self.bad = set(bad)

    def __call__(self, rides: Events[RideStarted]) -> Sequence[float]:
        for event in rides:
            if event.ride_id in self.bad:
                raise ValueError(f"no value for {event.ride_id}")
        return [1.0] * len(rides)


class Policy:
    """Decides when there is nothing more to wait for; with `broken`, it fails at that."""

    def __init__(self) -> None:
        self.broken = False

    def __call__(self, known: Known[RideStarted]) -> Verdict | None:
        if not known.final:
            return None
        if self.broken:
            raise LookupError("no rule")
        return Verdict("review" if known.missing else "accept")


class Rides:
    """Two models and a decision service on one broker, each a group of its own."""

    def __init__(self, *bad: str, dead_letter_run: int = 1000) -> None:
        self.broker = FakeBroker()
        self.duration, self.tip, self.policy = Model(*bad), Model(), Policy()
        self.scorers = [
            ScorerKit(RIDES, predict=model, model=name, broker=self.broker, group=name)
            for name, model in (("duration", self.duration), ("tip", self.tip))
        ]
        self.decision = PolicyKit(
            RIDES,
            self.policy,
            expected=EXPECTED,
            deadline=30,
            broker=self.broker,
            group="decision",
            dead_letter_run=dead_letter_run,
        )

    def run(self) -> None:
        for kit in (*self.scorers, self.decision):
            kit.run()

    def send(self, *names: str) -> None:
        for name in names:
            self.broker.send("ride_started", key=name.encode(), value=self.decision.encode(ride(name)))
        self.run()

    def send_back(self) -> Replay:
        replay = begun(self.broker)
        replay.send(open_letters(self.broker))
        self.run()
        return replay

    def revisions(self) -> dict[str, list[tuple[int, str]]]:
        found: dict[str, list[tuple[int, str]]] = {}
        for made in self.decision.decisions:
            found.setdefault(made.subject_id, []).append((made.revision, made.action))
        return found

    def predictions(self) -> Counter[tuple[str, str]]:
        return Counter((made.subject_id, made.model) for made in self.scorers[0].predictions)


def begun(broker: FakeBroker) -> Replay:
    replay = Replay(broker.producer(f"{LETTERS}-replay"), LETTERS, timeout=1)
    replay.begin()
    return replay


def open_letters(broker: FakeBroker) -> list[Letter]:
    """Those that were not sent back."""
    records = broker.records(LETTERS)
    done = {replayed_by(record) for record in records}
    letters = [Letter.of(record) for record in records if replayed_by(record) is None]
    return [letter for letter in letters if letter.place not in done]


def record(headers: Sequence[tuple[str, bytes | None]] | None = None, **changes: object) -> Message:
    fields: dict[str, object] = {"topic": "ride_started", "partition": 3, "offset": next(_numbers), "key": b"ride-1"}
    return Message(**(fields | {"value": b"\xff", "headers": headers and list(headers)} | changes))  # type: ignore[arg-type]


def letter(headers: Headers | None = None, **changes: bytes | None) -> Letter:
    """A dead letter as it is read; `changes` are other headers by Kafka Connect's names, None for none."""
    _, partition, key, value, written = dead_letter(LETTERS, record(headers), ValueError("no"), "duration")
    named = {f"{PREFIX}{name}": text for name, text in changes.items()}
    kept: Headers = [(name, text) for name, old in written if (text := named.get(name, old)) is not None]
    return Letter.of(record(kept, topic=LETTERS, partition=partition, key=key, value=value))


# The whole way


def test_what_is_sent_back_is_processed_by_its_group_alone() -> None:
    rides = Rides("ride-2")
    rides.send("ride-1", "ride-2", "ride-3")
    rides.decision.advance(seconds=30)
    assert rides.revisions()["ride-2"] == [(0, "review")]
    rides.duration.bad.clear()
    assert rides.send_back().sent == 1
    assert rides.predictions() == Counter({(f"ride-{n}", model): 1 for n in (1, 2, 3) for model in EXPECTED})
    assert rides.revisions() == {
        "ride-1": [(0, "accept")],
        "ride-2": [(0, "review"), (1, "accept")],
        "ride-3": [(0, "accept")],
    }
    assert rides.decision.processor.gauges()["open"] == 0


def test_what_was_sent_back_is_on_the_partition_that_it_came_from_and_has_its_headers() -> None:
    rides = Rides("ride-1")
    value = rides.decision.encode(ride("ride-1"))
    at = rides.broker.send("ride_started", key=b"ride-1", value=value, headers=[("trace", b"\x01")])
    rides.run()
    rides.send_back()
    _, again = rides.broker.records("ride_started")
    assert (again.topic(), again.partition(), again.key(), again.value()) == (*at, b"ride-1", value)
    [dead] = [message for message in rides.broker.records(LETTERS) if message.offset() == 0]
    assert raw_headers(again) == [
        ("trace", b"\x01"),
        (f"{REPLAY}letter", f"{dead.partition()}:0".encode()),
        (f"{REPLAY}attempt", b"1"),
        (f"{REPLAY}group", b"duration"),
    ]


def test_poison_comes_back_for_each_group_that_had_it() -> None:
    rides = Rides()
    rides.broker.send("ride_started", key=b"ride-1", value=b"no ride")
    rides.run()
    assert sorted(letter.group for letter in open_letters(rides.broker)) == ["decision", "duration", "tip"]
    rides.send_back()
    again = open_letters(rides.broker)
    assert sorted((letter.group, letter.attempts) for letter in again) == [
        ("decision", 1),
        ("duration", 1),
        ("tip", 1),
    ]


def test_the_counter_grows_up_to_the_limit() -> None:
    rides = Rides("ride-1")
    rides.send("ride-1")
    for attempts in range(3):
        [dead] = open_letters(rides.broker)
        assert dead.attempts == attempts
        assert obstacle(dead, PARTITIONS, max_attempts=3) is None
        rides.send_back()
    [dead] = open_letters(rides.broker)
    assert obstacle(dead, PARTITIONS, max_attempts=3) == "it was sent back 3 times already (--max-attempts)"
    assert obstacle(dead, PARTITIONS, max_attempts=4) is None


def test_a_decision_that_failed_at_its_deadline_is_made_with_the_predictions_that_had_come() -> None:
    rides = Rides("ride-1")
    rides.policy.broken = True
    rides.send("ride-1")
    rides.decision.advance(seconds=30)
    [of_duration, of_decision] = sorted(open_letters(rides.broker), key=lambda found: found.group, reverse=True)
    assert (of_decision.group, of_decision.offset, of_decision.exception) == ("decision", None, "builtins.LookupError")
    assert rides.decision.processor.gauges()["subjects_held"] == 0
    rides.policy.broken = False
    replay = begun(rides.broker)
    replay.send([of_decision])
    rides.run()
    [partial] = rides.decision.decisions
    assert (partial.complete, [one.model for one in partial.evidence]) == (False, ["tip"])
    rides.duration.bad.clear()
    replay.send([of_duration])
    rides.run()
    made = rides.decision.decisions[-1]
    assert (made.action, made.complete, made.revision) == ("accept", True, 1)
    assert {one.model for one in made.evidence} == set(EXPECTED)


def test_a_policy_that_fails_again_after_its_deadline_keeps_the_count_of_attempts_and_stops_no_worker() -> None:
    rides = Rides(*(f"ride-{number}" for number in range(30)), dead_letter_run=31)
    rides.policy.broken = True
    rides.send(*(f"ride-{number}" for number in range(30)))
    rides.decision.advance(seconds=30)
    for attempt in (1, 2, 3):
        begun(rides.broker).send([one for one in open_letters(rides.broker) if one.group == "decision"])
        rides.run()
        found = [one.attempts for one in open_letters(rides.broker) if one.group == "decision"]
        assert found == [attempt] * 30


def test_a_prediction_that_a_policy_failed_on_counts_when_it_is_sent_back() -> None:
    rides = Rides()
    rides.policy.broken = True
    rides.send("ride-1")
    [dead] = open_letters(rides.broker)
    assert dead.topic == "predictions"
    rides.policy.broken = False
    rides.send_back()
    assert rides.revisions() == {"ride-1": [(0, "accept")]}


# Skipping


def test_others_skip_before_they_decode_and_count_what_they_skip() -> None:
    kit = ScorerKit(RIDES, predict=Model(), model="tip", group="tip")
    group = [(f"{REPLAY}group", b"duration")]
    records = [record(group), record([(f"{REPLAY}group", b"tip")], value=b"no ride"), record(value=b"no ride")]
    work = kit.processor.prepare(records)(dict)
    assert work.counts == Counter({"in": 3, "skipped": 1, "dead_letters": 2, "out": 0})
    assert work.partitions == {Partition("ride_started", 3)}


def test_decisions_skip_in_both_topics_and_commit_what_was_skipped() -> None:
    kit = PolicyKit(RIDES, Policy(), expected=EXPECTED, broker=FakeBroker(partitions=1), group="decision")
    group = [(f"{REPLAY}group", b"tip")]
    for topic in ("ride_started", "predictions"):
        kit.broker.send(topic, key=b"x", value=b"poison", headers=group)
        kit.broker.send(topic, key=b"x", value=b"poison", headers=group)
    kit.run()
    assert kit.dead_letters == []
    assert kit.broker.committed("decision") == {Partition("ride_started", 0): 2, Partition("predictions", 0): 2}
    assert kit.watcher.metrics is not None
    assert kit.watcher.metrics.registry.get_sample_value("braidstream_records_skipped_total") == 4


def test_what_fails_again_after_it_was_sent_back_does_not_stop_the_worker() -> None:
    """They were dead letters already: sending them back too early must not end in a worker that no longer starts."""
    kit = ScorerKit(
        RIDES, predict=Model(*(f"ride-{number}" for number in range(150))), model="duration", dead_letter_run=160
    )
    for number in range(150):
        kit.send(ride(f"ride-{number}"))
    kit.send(ride("good"))
    replay = begun(kit.broker)
    replay.send(open_letters(kit.broker))
    kit.run()
    assert len(kit.dead_letters) == 300


def test_what_is_for_this_group_keeps_its_place_among_the_others() -> None:
    headers: list[Headers] = [
        [],
        [(f"{REPLAY}group", b"tip")],
        [("trace", b"1"), (f"{REPLAY}group", b"duration")],
        [("trace", b"2")],
        [(f"{REPLAY}group", None)],
        [(f"{REPLAY}group", b"tip")],
    ]
    records = [record(one) for one in headers]
    found = addressed(records, "tip")
    assert found.records == [records[place] for place in (0, 1, 3, 5)]
    assert found.skipped == [records[place] for place in (2, 4)]
    assert found.sent_back == {1, 3}


@pytest.mark.parametrize("headers", [None, [("trace", b"1")]])
def test_a_batch_of_which_nothing_was_sent_back_is_left_as_it_is(headers: Headers | None) -> None:
    records = [record(headers) for _ in range(3)]
    assert addressed(records, "tip").records is records


def test_what_fails_again_stops_no_worker_and_harms_no_neighbour() -> None:
    """However few dead letters in a row the worker takes."""
    broker, bad = FakeBroker(partitions=1), [f"bad-{number}" for number in range(12)]
    kit = ScorerKit(RIDES, predict=Model(*bad), model="duration", group="duration", broker=broker, dead_letter_run=5)
    for name in bad:
        kit.send(ride(name), ride(f"good-{name}"))
    begun(broker).send(open_letters(broker))
    assert [made.subject_id for made in kit.send(ride("last"))] == ["last"]
    assert [one.attempts for one in open_letters(broker)] == [1] * 12
    kit.restart()
    assert len(kit.predictions) == 13


# Carried predictions

RUBBISH = (
    b"[" * 100_000,
    b'[["a", "b", 1' + b"0" * 400 + b"]]",
    b'[["\\ud800", "b", 1]]',
    b'[["a", "b", NaN]]',
    b'[["", "b", 1]]',
    b'[["' + b"a" * 257 + b'", "b", 1]]',
    b"[" + b",".join([b'["a", "b", 1]'] * 51) + b"]",
)


def test_predictions_survive_the_header() -> None:
    evidence = [Evidence("duration", "1", 7.5), Evidence("tïp", "", -0.1)]
    assert evidence_of(record([evidence_header(evidence)])) == evidence


@pytest.mark.parametrize(
    "value", [None, b"", b"\xff", b"5", b"[5]", b'[["a", "b"]]', b'[["a", "b", "c"]]', b"{}", *RUBBISH]
)
def test_a_header_that_was_written_by_others_carries_nothing(value: bytes | None) -> None:
    assert evidence_of(record([(EVIDENCE, value)])) is None


def test_only_what_was_sent_back_brings_predictions_with_it() -> None:
    kit = PolicyKit(RIDES, Policy(), expected=["tip"], deadline=30, group="decision")
    carried = [evidence_header([Evidence("tip", "1", 7.5)])]
    kit.broker.send("ride_started", key=b"ride-1", value=kit.encode(ride("ride-1")), headers=carried)
    kit.run()
    assert kit.decisions == []


# What can be sent back


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"topic": None}, "its headers do not say which topic, partition and group it is from"),
        ({"group": None}, "its headers do not say which topic, partition and group it is from"),
        ({"partition": None}, "its headers do not say which topic, partition and group it is from"),
        ({"partition": b"-1"}, "its headers do not say which topic, partition and group it is from"),
        ({"topic": b"gone"}, "there is no topic gone that workers of this pipeline read"),
        ({"partition": b"4"}, "ride_started has no partition 4"),
        ({"offset": None}, None),
    ],
)
def test_what_cannot_be_sent_back_is_told(changes: dict[str, bytes | None], reason: str | None) -> None:
    assert obstacle(letter(None, **changes), PARTITIONS, max_attempts=3) == reason


def test_a_counter_that_is_no_number_is_told() -> None:
    odd = letter(headers=[(f"{REPLAY}attempt", b"many")])
    assert obstacle(odd, PARTITIONS, max_attempts=3) == "its header braidstream.replay.attempt is no number"


def test_a_record_without_anything_is_a_letter_of_which_nothing_is_known() -> None:
    found = Letter.of(Message(topic=LETTERS, partition=1, offset=2))
    assert (found.place, found.topic, found.partition, found.group, found.attempts) == (Place(1, 2), "", None, "", 0)
    assert obstacle(found, PARTITIONS, max_attempts=3) is not None


def test_a_note_is_told_from_a_dead_letter_without_a_value() -> None:
    one = letter()
    (*_, of_back), (*_, of_note) = sent_back(one, LETTERS)
    assert replayed_by(record(of_note, value=None)) == one.place
    assert replayed_by(record(of_note, value=b"")) is None
    assert replayed_by(record([(f"{REPLAY}letter", b"here")], value=None)) is None
    failed_again = record(of_back, value=None)
    *_, headers = dead_letter(LETTERS, failed_again, PoisonRecord("VALUE_CONVERTER", "the value is null"), "tip")
    assert replayed_by(record(headers, value=None)) is None


@pytest.mark.parametrize("text", ["", "3", "3:", ":3", "a:b", "3:1:7", "-1:0", "0:-1"])
def test_a_place_is_two_numbers(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of int, or of unpacking
        Place.parse(text)


# Sending


def dead(broker: FakeBroker, count: int, value: bytes = b"x") -> list[Letter]:
    """As many dead letters of one partition."""
    for number in range(count):
        source = record(partition=0, key=str(number).encode(), value=value)
        _, partition, key, content, headers = dead_letter(LETTERS, source, ValueError("no"), "tip")
        broker.send(LETTERS, key=key, value=content, partition=partition, headers=headers)
    return open_letters(broker)


def keys(broker: FakeBroker, topic: str = "ride_started") -> list[int]:
    return [int(message.key() or b"") for message in broker.records(topic)]


def test_many_are_sent_in_order_in_few_transactions() -> None:
    broker = FakeBroker(partitions=1)
    replay = begun(broker)
    replay.send(dead(broker, 2 * AT_ONCE + 1))
    assert keys(broker) == list(range(2 * AT_ONCE + 1))
    assert replay.sent == 2 * AT_ONCE + 1
    assert open_letters(broker) == []
    control_records = broker.log(Partition("ride_started", 0)).end - replay.sent
    assert control_records == 3


def test_one_that_is_too_large_is_left_out_and_named_and_the_others_go_on() -> None:
    broker = FakeBroker(partitions=1)
    letters = dead(broker, 20)
    large = letters[7]._replace(value=b"x" * 100)
    broker.max_message_bytes = 50
    replay = begun(broker)
    replay.send([*letters[:7], large, *letters[8:]])
    assert keys(broker) == [number for number in range(20) if number != 7]
    assert replay.sent == 19
    assert list(replay.refused) == [large.place]
    assert replay.refused[large.place].startswith("the broker refuses it: ")
    assert open_letters(broker) == [letters[7]]


def test_a_replay_ends_the_one_before_and_knows_what_that_has_sent() -> None:
    broker = FakeBroker(partitions=1)
    letters = dead(broker, 10)
    first = begun(broker)
    first.send(letters[:4])
    second = begun(broker)
    with pytest.raises(FencedError, match="another replay of dead_letters has begun"):
        first.send(letters[4:])
    first.close()
    second.send(open_letters(broker))
    assert keys(broker) == list(range(10))
    assert (first.sent, second.sent) == (4, 6)


@pytest.mark.parametrize(
    ("call", "done"),
    [
        ("begin_transaction", False),
        ("begin_transaction", True),
        ("deliver", False),
        ("commit_transaction", False),
        ("commit_transaction", True),
    ],
)
def test_a_broker_that_fails_is_told_and_the_same_command_goes_on(call: str, done: bool) -> None:
    broker = FakeBroker(partitions=1)
    letters = dead(broker, 10)
    replay = begun(broker)
    replay.send(letters[:4])
    error = KafkaError(KafkaError._TIMED_OUT, retriable=True)
    broker.fail_next(call, error, skip=1 if call == "deliver" else 0, done=done)
    with pytest.raises(FatalError, match=r"the broker failed .* Give the same command again"):
        replay.send(letters[4:])
    replay.close()
    begun(broker).send(open_letters(broker))
    assert keys(broker) == list(range(10))


def test_the_gap_that_a_refusal_leaves_is_passed_once() -> None:
    """As librdkafka has it: the next transaction of the producer fails, and bumps its epoch."""
    broker = FakeBroker(partitions=1)
    letters = dead(broker, 4)
    broker.max_message_bytes = 50
    replay = begun(broker)
    replay.send([letters[0]._replace(value=b"x" * 100)])
    gap = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, txn_requires_abort=True)
    broker.fail_next("commit_transaction", gap)
    replay.send(letters[1:3])
    assert keys(broker) == [1, 2]
    broker.fail_next("commit_transaction", gap)
    with pytest.raises(FatalError, match="OUT_OF_ORDER_SEQUENCE_NUMBER"):
        replay.send(letters[3:])


def test_a_broker_without_transactions_is_told() -> None:
    broker = FakeBroker()
    broker.fail_next("init_transactions", KafkaError(KafkaError._TIMED_OUT))
    with pytest.raises(UnavailableError, match="the broker accepts no transactions"):
        begun(broker)


def test_what_is_open_when_it_ends_is_aborted() -> None:
    broker = FakeBroker(partitions=1)
    letters = dead(broker, 10)
    replay = begun(broker)
    broker.fail_next("deliver", KeyboardInterrupt(), skip=3)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        replay.send(letters)
    replay.close()
    assert keys(broker) == []
    assert broker.log(Partition("ride_started", 0)).stable_end == broker.log(Partition("ride_started", 0)).end
