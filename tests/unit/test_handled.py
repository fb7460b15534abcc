"""What is known of handled subjects, compared with two plain dicts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from braidstream.deciding.handled import HandledSubjects

names = st.sampled_from("abcdef")
times = st.integers(0, 5)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), names, times),
        st.tuples(st.just("expire"), times, st.integers(0, 4)),
        st.tuples(st.just("forget"), st.integers(0, 3), st.just(0)),
        st.tuples(st.sampled_from(["commit", "rollback"]), st.just(0), st.just(0)),
    ),
    max_size=30,
)


def expired(known: dict[str, int], now: float, most: int) -> dict[str, int]:
    """What is left."""
    due = sorted((at, name) for name, at in known.items() if at <= now)[:most]
    return {name: at for name, at in known.items() if (at, name) not in due}


@given(st.dictionaries(names, times), steps)
def test_it_knows_what_two_dicts_know(restored: dict[str, int], happens: list[tuple[str, object, object]]) -> None:
    subjects = HandledSubjects()
    for name, at in restored.items():
        subjects.restore(name, at)
    committed, staged, touched = dict(restored), dict(restored), set[str]()
    for step in happens:
        before = dict(staged)
        match step:
            case "add", str(name), int(at):
                subjects.add(name, at)
                staged[name] = at
                touched.add(name)
            case "expire", int(now), int(most):
                staged = expired(staged, now, most)
                assert subjects.expire(now, most) == len(before) - len(staged)
            case "forget", int(count), _:
                subjects.forget_oldest(count)
                staged = expired(staged, float("inf"), count)
            case "commit", _, _:
                subjects.commit()
                committed, touched = dict(staged), set()
            case "rollback", _, _:
                subjects.rollback()
                staged, touched = dict(committed), set()
        touched |= before.keys() - staged.keys() if step[0] != "rollback" else set()
        assert {name for name in "abcdef" if subjects.includes(name, -1)} == staged.keys()
        assert subjects.remembered == len(staged)
        assert subjects.changes() == {name: staged.get(name) for name in touched}


def test_it_counts_what_it_forgets_early_until_that_is_in_the_log() -> None:
    subjects = HandledSubjects()
    for number in range(5):
        subjects.restore(str(number), 100)
    subjects.forget_oldest(2)
    assert subjects.forgotten_early == 2
    subjects.rollback()
    assert (subjects.forgotten_early, subjects.remembered) == (0, 5)
