"""The order in which subjects expire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from braidstream.deciding.expiries import Expiries

entries = st.tuples(st.integers(0, 5), st.sampled_from("abcd"))


def pop_all(expiries: Expiries, until: int) -> list[tuple[int, str]]:
    return list(iter(lambda: expiries.pop(until), None))


@given(st.lists(entries), st.integers(0, 5))
def test_they_come_in_order_of_time_and_name_up_to_the_time_asked_for(added: list[tuple[int, str]], until: int) -> None:
    expiries = Expiries()
    for entry in added:
        expiries.add(*entry)
    assert expiries.next == min((at for at, _ in added), default=None)
    assert pop_all(expiries, until) == sorted(entry for entry in added if entry[0] <= until)
    assert pop_all(expiries, 5) == sorted(entry for entry in added if entry[0] > until)
    assert expiries.next is None


@given(st.lists(entries | st.none()))
def test_what_is_added_between_takes_its_place(steps: list[tuple[int, str] | None]) -> None:
    expiries = Expiries()
    held: list[tuple[int, str]] = []
    for entry in steps:
        if entry is not None:
            expiries.add(*entry)
            held.append(entry)
        else:
            assert expiries.pop(5) == min(held, default=None)
            held = sorted(held)[1:]
