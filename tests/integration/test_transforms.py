"""Every transform means the same on the server and in Python: forward, refusals, the way back, and what it loses."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.transforms.base import Sql, Transform, apply, refused, unapply
from spine_migrate.mapping.transforms.cast import PAIRS, Cast
from spine_migrate.mapping.transforms.default import Default
from spine_migrate.mapping.transforms.offset import Offset
from spine_migrate.mapping.transforms.read_path import ReadPath
from spine_migrate.mapping.transforms.shorten import Shorten
from spine_migrate.mapping.transforms.uuid_from import UuidFrom
from spine_migrate.mapping.transforms.value_map import ValueMap
from spine_migrate.mapping.transforms.zone import Zone
from tests.database import Role, fresh_database
from tests.values import (
    BY_TYPE,
    TRANSITIONS,
    comparable,
    from_text,
    integers,
    json_text,
    local_times,
    nullable,
    text,
    to_text,
)

EXAMPLES = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def connection(server_url: str, owner: Role) -> Iterator[Connection]:
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        connect(database.url) as opened,
    ):
        yield opened


@st.composite
def _value_map(draw: st.DrawFn) -> ValueMap:
    given_type, gives = draw(
        st.sampled_from([("text", "text"), ("integer", "text"), ("text", "integer"), ("integer", "integer")])
    )
    small = {"text": st.sampled_from(["a", "b", "", "%", "'", "\\"]), "integer": st.integers(-3, 3)}
    values = draw(st.dictionaries(small[given_type], small[gives], min_size=1, max_size=5))
    return ValueMap(given_type, gives, values, others_pass=given_type == gives and draw(st.integers(0, 3)) > 0)


@st.composite
def _spelled(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> str:
    """The value's text, or something that almost is one."""
    spelled = str(draw(strategy))
    return draw(
        st.sampled_from([spelled, spelled.upper(), f"0{spelled}", f"{spelled}\n", f" {spelled}", f"-{spelled}", ""])
    )


_CAST_TEXT = {
    "uuid": _spelled(st.uuids()),
    "integer": _spelled(integers["integer"] | integers["bigint"]),
    "bigint": _spelled(integers["bigint"] | st.integers(-(2**70), 2**70)),
}
_documents = BY_TYPE["jsonb"] | st.fixed_dictionaries(
    {"a": BY_TYPE["jsonb"] | st.lists(BY_TYPE["jsonb"].filter(lambda v: not hasattr(v, "value")), max_size=3)}
).map(lambda value: {"a": None if hasattr(value["a"], "value") else value["a"]})


@st.composite
def _cases(draw: st.DrawFn, transform: str) -> tuple[Transform, list[Any]]:
    """A transform and values for it, NULLs among them."""
    step: Transform
    values: st.SearchStrategy[Any] | None = None
    match transform:
        case "value map":
            step = draw(_value_map())
            values = st.sampled_from([*step.values, *step.back]) | BY_TYPE[step.given]
            if step.given != step.gives:
                values = st.sampled_from([*step.values]) | BY_TYPE[step.given]
        case "offset":
            kind = draw(st.sampled_from(["integer", "bigint"]))
            step = Offset(kind, draw(integers[kind]))
        case "default":
            kind = draw(st.sampled_from(["text", "integer", "jsonb"]))
            default = {"text": text, "integer": integers["integer"], "jsonb": st.just({"%": ["'", 1.5]})}[kind]
            step = Default(kind, draw(default))
        case "zone":
            step = Zone(draw(st.sampled_from(sorted(TRANSITIONS))))
            values = local_times(step.zone)
        case "uuid":
            kind = draw(st.sampled_from(["text", "uuid", "integer", "bigint"]))
            step = UuidFrom(kind, draw(text))
        case "shorten":
            step = Shorten(draw(st.integers(1, 20)))
        case "read":
            keys = st.sampled_from(["a", "null", "0", "-1", "+1", " 1", "1 ", "{", '"', "\u00e4"])
            step = ReadPath(
                tuple(draw(st.lists(keys, min_size=1, max_size=2))), draw(st.sampled_from(["text", "jsonb"]))
            )
            values = _documents
        case _:
            step = Cast(*draw(st.sampled_from(PAIRS)))
            if step.given == "text":
                values = _CAST_TEXT[step.gives] | text
    return step, draw(
        st.lists(st.none() | (BY_TYPE[step.given] if values is None else values), min_size=1, max_size=40)
    )


def _on_server(connection: Connection, steps: tuple[Transform, ...], values: list[Any]) -> list[tuple[Any, ...]]:
    """For each value: the reason it is refused; else the result, what comes back, and whether that is less."""
    given_type, gives = steps[0].given, steps[-1].gives
    value: Sql = sql.Identifier("v", "value")
    whens: list[Sql] = []
    result = value
    for step in steps:
        for refusal in step.refusals(result):
            # The sentence must be there, too.
            whens.append(sql.SQL("WHEN {} AND {} IS NULL THEN 'no detail'").format(refusal.condition, refusal.detail))
            whens.append(sql.SQL("WHEN {} THEN {}").format(refusal.condition, sql.Literal(refusal.reason)))
        result = step.sql(result)
    back = result
    for step in reversed(steps):
        back = step.inverse_sql(back)
    lossy = [step for step in steps if not step.lossless]
    at = value
    for step in steps[: steps.index(lossy[0])] if lossy else ():
        at = step.sql(at)
    loses = (lossy[0].loses(at) if len(lossy) == 1 else None) or sql.SQL("{} IS DISTINCT FROM {}").format(value, back)
    query = sql.SQL(
        "SELECT reason, CASE WHEN reason IS NULL THEN ({result})::text END,"
        " CASE WHEN reason IS NULL THEN ({back})::text END,"
        " CASE WHEN reason IS NULL THEN coalesce({loses}, false) END"
        " FROM (SELECT n, CASE {whens} WHEN false THEN '' END AS reason, value"
        " FROM (SELECT n, t::{type} AS value FROM unnest($1::text[]) WITH ORDINALITY AS u(t, n)) AS v) AS v ORDER BY n"
    ).format(
        result=result, back=back, loses=loses, whens=sql.SQL(" ").join(whens), type=sql.SQL(given_type)
    )  # fmt: skip
    written = [(json_text if given_type == "jsonb" else to_text)(one) for one in values]
    return [
        (reason, from_text(forward, gives), from_text(again, given_type), lost)
        for reason, forward, again, lost in execute(connection, query, written).fetchall()
    ]


def _in_python(steps: tuple[Transform, ...], values: list[Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for value in values:
        reason = refused(steps, value)
        if reason is not None:
            found.append((reason, None, None, None))
            continue
        result = apply(steps, value)
        back = unapply(steps, result)
        found.append((None, result, back, back != value))
    return found


def _agree(connection: Connection, steps: tuple[Transform, ...], values: list[Any]) -> None:
    server = _on_server(connection, steps, values)
    python = _in_python(steps, values)
    for value, left, right in zip(values, server, python, strict=True):
        assert [comparable(part) for part in left[:3]] == [comparable(part) for part in right[:3]], value
        if all(step.invertible for step in steps):
            assert left[3] == right[3], value
    if all(step.lossless and step.invertible for step in steps):
        assert not any(lost for *_, lost in python)


@pytest.mark.parametrize("transform", ["value map", "offset", "default", "zone", "uuid", "shorten", "read", "cast"])
def test_both_forms_agree(transform: str, connection: Connection) -> None:
    """Over generated transforms of the kind and generated values, edges included."""

    @EXAMPLES
    @given(_cases(transform))
    def check(case: tuple[Transform, list[Any]]) -> None:
        step, values = case
        _agree(connection, (step,), values)

    check()


@EXAMPLES
@given(data=st.data())
def test_a_lossy_step_among_others(data: st.DataObject, connection: Connection) -> None:
    """The cheaper condition for what is lost holds inside a pipeline too."""
    default = Default("integer", data.draw(st.integers(-3, 3)))
    offset = Offset("integer", data.draw(st.integers(-3, 3)))
    steps: tuple[Transform, ...] = data.draw(
        st.sampled_from([(default, offset), (default,), (offset, Cast("integer", "text"))])
    )
    _agree(connection, steps, data.draw(st.lists(nullable("integer"), min_size=1, max_size=40)))


def test_a_uuid_is_of_version_8_and_the_same_for_ever() -> None:
    """Moved rows carry these keys: a change of one bit would lose them."""
    made = UuidFrom("bigint", "capture-spine/jobs").python(42)
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert str(made) == "75e5d8f9-521f-8971-8e0a-d7ebaad6e8e2"


def test_the_first_value_is_the_way_back() -> None:
    """Of several that give the same one; a value that passes onto a mapped one is lost, too."""
    step = ValueMap("integer", "text", {5: "normal", 4: "normal", 9: "slow"})
    assert [step.inverse_python(value) for value in ("normal", "slow")] == [5, 9]
    assert not step.lossless
    assert ValueMap("text", "text", {"a": "b", "b": "a"}, others_pass=True).lossless
    assert not ValueMap("text", "text", {"a": "b"}, others_pass=True).lossless


def test_a_text_may_use_the_whole_range_of_its_type() -> None:
    step = Cast("text", "bigint")
    assert [step.refuse(str(number)) for number in (2**63 - 1, -(2**63))] == [None, None]
    assert [step.refuse(str(number)) for number in (2**63, -(2**63) - 1)] == ["bad_value", "bad_value"]
