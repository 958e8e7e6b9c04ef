"""When silence proves something: a law against the slowest way to know, minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.db.shim_tables import GAP, Silence, Verdict, unwatched
from tests.shim_calls import NOW

_LONGEST = 12 * 60
_SPANS = st.lists(
    st.tuples(st.integers(-_LONGEST, _LONGEST), st.integers(0, _LONGEST)).map(lambda given: (given[0], sum(given))),
    max_size=6,
)


@given(_SPANS, st.integers(1, _LONGEST))
def test_no_pause_is_longer_than_it_may_be(spans: list[tuple[int, int]], length: int) -> None:
    """At every half minute of the time in question somebody was there, or had been at most a gap before."""
    begin, gap = datetime(2026, 11, 1, tzinfo=UTC), int(GAP / timedelta(minutes=1))
    spans = sorted((since, min(seen, length)) for since, seen in spans if since <= length and seen >= -gap)
    told = unwatched(
        "shop.bill",
        [(begin + timedelta(minutes=since), begin + timedelta(minutes=seen)) for since, seen in spans],
        begin,
        begin + timedelta(minutes=length),
    )
    moments = [half / 2 for half in range(2 * length + 1)]
    watched = all(any(since <= at <= seen + gap for since, seen in spans) for at in moments)
    assert (told is None) == watched


def test_a_call_settles_it_whatever_else_is_not_known() -> None:
    unknown = Silence(NOW, ("a",), (), ("nobody was there",))
    assert unknown.verdict is Verdict.UNKNOWN
    assert Silence(NOW, ("a",), (), ()).verdict is Verdict.SILENT
