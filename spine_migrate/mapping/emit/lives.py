"""The SQL of event parity: the history of each run on both sides, compared and held against the laws of histories.

One statement. The events of a side are put together per run, in the order of timestamp and the table's own key. What
differs, or is illegal in that order, is looked at again: events of one moment come in an order that no column tells,
so that a history is illegal only if it is in the order of a life as well (``letters.PLACES``).
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.execution.events import EventType
from spine_migrate.execution.history import AFTER, ENDS
from spine_migrate.execution.runs import FINAL
from spine_migrate.mapping.emit import letters
from spine_migrate.mapping.emit.narrow import Narrow
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.types import typename

RUN_COLUMNS = ("run_id", "status", "started_at", "completed_at")
EVENT_COLUMNS = ("event_id", "run_id", "event_type", "timestamp")

#: What is said of one run; ``s`` is the target's history, ``p`` the legacy one.
_NOTES = {
    "count": "format('%s events, now %s', s.old_events, s.new_events)",
    "gaps": "concat_ws(', ', CASE WHEN s.unstarted THEN 'started_at without a started event' END,"
    " CASE WHEN s.unended THEN format('status %s without the event of an end', s.status) END,"
    " CASE WHEN s.gap THEN 'a step between two events is missing' END)",
    "status-agrees": "format('status %s', s.status)",
    "times-agree": "concat_ws(', ', CASE WHEN s.started_at <> s.started"
    " THEN format('started_at %s, last started event %s', s.started_at, s.started) END,"
    " CASE WHEN s.completed_at <> s.ended"
    " THEN format('completed_at %s, last event of an end %s', s.completed_at, s.ended) END)",
    "orphans": "CASE WHEN s.there THEN 'the run does not carry the mark of this mapping'"
    " ELSE 'there is no such run' END",
}


@dataclass(frozen=True)
class Lives:
    """Runs and their events, of two mappings that belong together."""

    runs: Narrow
    events: Narrow

    def judged(self) -> sql.Composed:
        """``$1`` is how many runs to name of each check, ``$2`` (text) those of which changes are not applied yet.

        Rows: ``code, runs, inherited, flying, run, of_legacy, note``. One per check that some run breaks, with its
        numbers of ``runs``, ``run`` NULL; those of ``$2`` are ``flying`` where the legacy side does not break it too,
        and among no other number. Then the named runs, ``runs`` NULL, those first that are not ``of_legacy``.
        """
        parts = {
            "old_life": self._old_life(),
            "new_life": self._new_life(),
            "life": self._life(),
            "word": self._words(),
            "suspect": self._suspects(),
            "again": self._again(),
            "past": self._past(),
            "found": self._found(),
        }
        once = ("old_life", "new_life")
        tables = sql.SQL(", ").join(
            sql.SQL("{} AS {} ({})").format(
                sql.Identifier(name), sql.SQL("NOT MATERIALIZED" if name in once else "MATERIALIZED"), part
            )
            for name, part in parts.items()
        )
        return sql.SQL(
            "WITH {tables}, told AS MATERIALIZED (SELECT *, NOT of_legacy AND run::text = ANY ($2::text[]) AS flies"
            " FROM found) SELECT code, count(*) FILTER (WHERE NOT flies) AS runs,"
            " count(*) FILTER (WHERE of_legacy) AS inherited, count(*) FILTER (WHERE flies) AS flying, NULL AS run,"
            " NULL::boolean AS of_legacy, NULL AS note FROM told GROUP BY code UNION ALL"
            " (SELECT f.code, NULL, NULL, NULL, f.run::text, f.of_legacy, CASE f.code {notes} END FROM (SELECT *,"
            " row_number() OVER (PARTITION BY code ORDER BY of_legacy, run) AS rank FROM told WHERE NOT flies) AS f"
            " JOIN suspect AS s USING (run) WHERE f.rank <= $1::bigint ORDER BY f.code, f.rank)"
        ).format(
            tables=tables,
            notes=sql.SQL(" ").join(
                sql.SQL("WHEN {} THEN {}").format(sql.Literal(code), sql.SQL(note)) for code, note in _NOTES.items()
            ),
        )

    def touched(self) -> sql.Composed:
        """Rows ``run`` (text): those that events with the legacy keys ``$1`` or the target keys ``$2`` (text) are of,
        on either side.
        """
        return sql.SQL(
            "SELECT run_id::text AS run FROM {old} AS e WHERE legacy_key::text = ANY ($1::text[])"
            " UNION SELECT run_id::text FROM {new} AS e WHERE event_id::text = ANY ($2::text[])"
        ).format(old=self.events.old("run_id"), new=self.events.new("event_id", "run_id"))

    def shown(self) -> sql.Composed:
        """The histories of the runs ``$1`` (text), at most ``$2`` events of each.

        Rows: ``run, legacy_key, old, old_timed, new, new_timed``, all text; the last four are lists of event types, and
        of event types with their timestamps.
        """
        return sql.SQL(
            "WITH wanted AS MATERIALIZED (SELECT given::{type} AS run FROM unnest($1::text[]) AS given)"
            " SELECT w.run::text, r.legacy_key::text, o.types AS old, o.timed AS old_timed, n.types AS new,"
            " n.timed AS new_timed FROM wanted AS w LEFT JOIN {runs} AS r ON r.run_id = w.run"
            " LEFT JOIN ({old}) AS o ON o.run = w.run LEFT JOIN ({new}) AS n ON n.run = w.run"
        ).format(
            type=typename(self.runs.binding.mapping.target.columns["run_id"].type.name),
            runs=self.runs.old("run_id"),
            old=_listed(self.events.old(*EVENT_COLUMNS), "legacy_key"),
            new=_listed(self.events.new(*EVENT_COLUMNS), "event_id"),
        )

    def _old_life(self) -> Sql:
        return sql.SQL(
            "SELECT run_id AS run, count(*) AS events,"
            " string_agg({code}, '' ORDER BY timestamp, legacy_key) AS sequence,"
            " array_agg(timestamp ORDER BY timestamp, legacy_key) AS times FROM {events} AS e GROUP BY run_id"
        ).format(code=_code(), events=self.events.old(*EVENT_COLUMNS))

    def _new_life(self) -> Sql:
        """Events that others have added belong to the life of a run, though not to what was moved."""
        return sql.SQL(
            "SELECT run_id AS run, count(*) FILTER (WHERE ours) AS events,"
            " string_agg({code}, '' ORDER BY timestamp, event_id) FILTER (WHERE ours) AS sequence,"
            " array_agg(timestamp ORDER BY timestamp, event_id) FILTER (WHERE ours) AS times,"
            " coalesce(string_agg({letter}, '' ORDER BY timestamp, event_id), '') AS word, {facts}"
            " FROM {events} AS e GROUP BY run_id"
        ).format(code=_code(), letter=_letter(), facts=_facts(), events=self.events.new(*EVENT_COLUMNS))

    def _life(self) -> Sql:
        return sql.SQL(
            "SELECT coalesce(n.run, o.run) AS run, r.run_id IS NOT NULL AS there, coalesce(r.ours, false) AS ours,"
            " n.run IS NOT NULL AS has_events, coalesce(n.events > 0, false) AS has_ours,"
            " coalesce(o.events, 0) AS old_events, coalesce(n.events, 0) AS new_events,"
            " o.sequence IS DISTINCT FROM n.sequence AS reordered, o.times IS DISTINCT FROM n.times AS retimed,"
            " CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN o.sequence END AS old_sequence,"
            " CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN n.sequence END AS new_sequence,"
            " r.status, r.started_at, r.completed_at, n.word, n.started, n.ended, n.untimed,"
            " {broken} FROM new_life AS n FULL JOIN old_life AS o ON o.run = n.run"
            " LEFT JOIN {runs} AS r ON r.run_id = coalesce(n.run, o.run)"
            " WHERE coalesce(r.ours, false) OR r.run_id IS NULL OR n.events > 0 OR o.run IS NOT NULL"
        ).format(broken=_broken("n", "r"), runs=self.runs.new(*RUN_COLUMNS))

    def _words(self) -> Sql:
        """Each word is judged once, however many runs have it."""
        return sql.SQL("SELECT word, {judged} FROM (SELECT DISTINCT word FROM life WHERE ours) AS w").format(
            judged=_judged("word")
        )

    def _suspects(self) -> Sql:
        return sql.SQL(
            "SELECT l.*, w.late, w.early, w.gap FROM life AS l LEFT JOIN word AS w ON w.word = l.word AND l.ours"
            " WHERE CASE WHEN l.reordered OR l.retimed OR l.has_ours AND NOT l.ours OR NOT l.there"
            " OR l.ours AND (l.unstarted OR l.unended OR l.status_apart OR l.times_apart OR w.late OR w.early OR w.gap)"
            " THEN 1 ELSE 0 END = 1"
        )

    def _again(self) -> Sql:
        """The target's words once more, in the order of a life, where they are illegal in the order of the keys."""
        return sql.SQL(
            "SELECT run, word, {judged} FROM (SELECT run_id AS run, {word} AS word FROM {events} AS e WHERE run_id IN"
            " (SELECT run FROM suspect WHERE late OR early OR gap OR status_apart) GROUP BY run_id) AS w"
        ).format(judged=_judged("word"), word=_in_life("event_id"), events=self.events.new(*EVENT_COLUMNS))

    def _past(self) -> Sql:
        """The legacy side of the suspects that break a law."""
        return sql.SQL(
            "SELECT w.*, r.status, r.started_at, r.completed_at, {by_key}, {by_life}, {broken}"
            " FROM (SELECT run_id AS run,"
            " coalesce(string_agg({letter}, '' ORDER BY timestamp, legacy_key), '') AS word,"
            " {in_life} AS life_word, {facts} FROM {events} AS e WHERE run_id IN (SELECT run FROM suspect WHERE late OR"
            " early OR gap OR unstarted OR unended OR status_apart OR times_apart OR NOT ours) GROUP BY run_id) AS w"
            " LEFT JOIN {runs} AS r ON r.run_id = w.run"
        ).format(
            by_key=_judged("w.word"),
            by_life=_judged("w.life_word", "life_"),
            broken=_broken("w", "r"),
            letter=_letter(),
            in_life=_in_life("legacy_key"),
            facts=_facts(),
            events=self.events.old(*EVENT_COLUMNS),
            runs=self.runs.old(*RUN_COLUMNS),
        )

    def _found(self) -> Sql:
        """A run per check that it breaks. ``of_legacy``: the legacy history breaks it too; where two values do not
        agree, they are the same two.
        """
        return sql.SQL(
            "SELECT s.run, v.code, coalesce(v.of_legacy, false) AS of_legacy FROM suspect AS s"
            " LEFT JOIN again AS a USING (run) LEFT JOIN past AS p USING (run)"
            " CROSS JOIN LATERAL (VALUES"
            " ('sequence', s.reordered, false), ('count', s.old_events <> s.new_events, false),"
            " ('types', s.reordered AND {old_types} IS DISTINCT FROM {new_types}, false),"
            " ('timestamps', s.retimed, false),"
            " ('gaps', s.ours AND (s.unstarted OR s.unended OR s.gap AND a.gap),"
            " (p.unstarted OR NOT s.unstarted) AND (p.unended OR NOT s.unended)"
            " AND (p.gap AND p.life_gap OR NOT (s.gap AND a.gap) IS TRUE)),"
            " ('terminal', s.ours AND s.late AND a.late, p.late AND p.life_late),"
            " ('started-first', s.ours AND s.early AND a.early, p.early AND p.life_early),"
            " ('status-agrees', s.ours AND s.status_apart AND strpos({led}, {last}) = 0,"
            " p.status_apart AND (p.status, {past_last}) = (s.status, {last})),"
            " ('times-agree', s.ours AND s.times_apart, p.times_apart"
            " AND (p.started_at, p.started, p.completed_at, p.ended)"
            " IS NOT DISTINCT FROM (s.started_at, s.started, s.completed_at, s.ended)),"
            " ('orphans', s.has_events AND NOT s.there OR s.has_ours AND NOT s.ours, false)"
            ") AS v (code, broken, of_legacy) WHERE v.broken"
        ).format(
            old_types=_sorted("s.old_sequence"),
            new_types=_sorted("s.new_sequence"),
            led=letters.led_to(sql.SQL("s.status")),
            past_last=letters.last(sql.SQL("p.life_word")),
            last=letters.last(sql.SQL("a.word")),
        )


_TYPE = sql.Identifier("event_type")


def _code() -> Sql:
    """A letter by which a type is told apart from all others; of types that the runtime does not know, their MD5."""
    return letters.choose(_TYPE, letters.CODES.get, sql.SQL("'(' || md5(coalesce(event_type, '')) || ')'"))


def _letter() -> Sql:
    """An event without a timestamp has no place in the order."""
    letter = letters.choose(_TYPE, letters.LETTERS.get, sql.SQL("NULL"))
    return sql.SQL("CASE WHEN timestamp IS NOT NULL THEN {} END").format(letter)


def _in_life(key: str) -> Sql:
    return sql.SQL("coalesce(string_agg({}, '' ORDER BY timestamp, {}, {}), '')").format(
        _letter(), letters.choose(_TYPE, letters.PLACES.get, sql.SQL("NULL::integer")), sql.Identifier(key)
    )


def _facts() -> Sql:
    return sql.SQL(
        "count(*) FILTER (WHERE event_type IN {started}) AS starts,"
        " count(*) FILTER (WHERE event_type IN {ends}) AS ends,"
        " max(timestamp) FILTER (WHERE event_type IN {started}) AS started,"
        " max(timestamp) FILTER (WHERE event_type IN {ends}) AS ended,"
        " bool_or(timestamp IS NULL AND event_type IN {states}) AS untimed"
    ).format(
        started=letters.types({EventType.STARTED}), ends=letters.types(ENDS), states=letters.types(frozenset(AFTER))
    )


def _broken(history: str, run: str) -> Sql:
    """What a run's row and its history say of each other; a history of no events says nothing."""
    names = {"h": sql.Identifier(history), "r": sql.Identifier(run)}
    return sql.SQL(
        "{r}.started_at IS NOT NULL AND {h}.starts = 0 AS unstarted,"
        " {r}.status IN ({final}) AND {h}.ends = 0 AS unended,"
        " NOT {h}.untimed AND {last} <> '' AND strpos({led}, {last}) = 0 AS status_apart,"
        " NOT {h}.untimed AND ({r}.started_at <> {h}.started OR {r}.completed_at <> {h}.ended) IS TRUE AS times_apart"
    ).format(
        **names,
        final=sql.SQL(", ").join(sql.Literal(str(status)) for status in sorted(FINAL)),
        last=letters.last(sql.Identifier(history, "word")),
        led=letters.led_to(sql.Identifier(run, "status")),
    )


def _judged(word: str, prefix: str = "") -> Sql:
    laws = {"late": letters.LATE, "early": letters.EARLY, "gap": letters.GAP}
    return sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(letters.breaks(sql.Identifier(*word.split(".")), law), sql.Identifier(prefix + name))
        for name, law in laws.items()
    )


def _listed(events: Sql, key: str) -> Sql:
    more = sql.SQL("CASE WHEN count(*) > $2::bigint THEN format(', … %s in all', count(*)) ELSE '' END")
    return sql.SQL(
        "SELECT run_id AS run,"
        " array_to_string((array_agg(event_type ORDER BY timestamp, {key}))[:$2::bigint], ', ') || {more} AS types,"
        " array_to_string((array_agg(concat_ws(' ', event_type, timestamp) ORDER BY timestamp, {key}))[:$2::bigint],"
        " ', ') || {more} AS timed FROM {events} AS e WHERE run_id IN (SELECT run FROM wanted) GROUP BY run_id"
    ).format(key=sql.Identifier(key), more=more, events=events)


def _sorted(sequence: str) -> Sql:
    """The types of a sequence, without their order."""
    return sql.SQL("(SELECT array_agg(m[1] ORDER BY m[1]) FROM regexp_matches({}, '\\(.*?\\)|.', 'g') AS m)").format(
        sql.Identifier(*sequence.split("."))
    )
