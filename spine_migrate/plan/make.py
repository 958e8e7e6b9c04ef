"""Making a plan: look everything up, judge every row, change nothing.

All questions but the timing sample are asked in one REPEATABLE READ, READ ONLY transaction, so the figures agree with
each other; it holds back vacuum for as long as the plan takes. What the server will not tell becomes an entry in
``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from spine_migrate.db import ledger, privileges
from spine_migrate.db.catalog import Relation, duplicates, find, is_unique
from spine_migrate.db.connect import Connection
from spine_migrate.db.row_shape import Filled, row_shape
from spine_migrate.db.version_table import recorded_target
from spine_migrate.errors import Drift, Refused
from spine_migrate.mapping.bind import Binding, bind
from spine_migrate.mapping.load import required
from spine_migrate.mapping.model import Mapping
from spine_migrate.plan import findings, surroundings
from spine_migrate.plan.ask import Asker
from spine_migrate.plan.data import Data
from spine_migrate.plan.estimate import estimate
from spine_migrate.plan.model import Estimate, Finding, Plan, Rows, Scan, Step, Unknown
from spine_migrate.plan.steps import own_steps

OLDEST_SERVER = 140000


@dataclass(frozen=True)
class Options:
    """``sample`` times a sample in a temporary table; ``offline`` asks for the privileges of an offline load.

    ``examples`` offending rows are named for each kind. A transaction is long from ``long_seconds`` on.
    """

    sample: bool = True
    offline: bool = False
    examples: int = 3
    long_seconds: int = 300


def make_plan(
    connection: Connection,
    mapping: Mapping,
    *,
    source_schema: str | None = None,
    target_schema: str | None = None,
    options: Options | None = None,
    steps: Callable[[Binding], Iterable[Step]] = own_steps,
    announce: Callable[[Scan], None] = lambda _: None,
) -> Plan:
    """The plan for one mapping. ``connection`` is from ``db.connect``, in autocommit mode and outside a transaction.

    ``steps`` are the statements that the engine will run, for the binding; ``announce`` is told of every scan before it
    starts. Missing tables, drift and the like are in the plan's ``blocks``, not raised. Raises psycopg.Error only where
    the connection is lost.
    """
    maker = _Maker(connection, mapping, options or Options(), announce)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        plan = maker.read(source_schema, target_schema, steps)
    return maker.finish(plan)


class _Maker:
    def __init__(
        self, connection: Connection, mapping: Mapping, options: Options, announce: Callable[[Scan], None]
    ) -> None:
        self.connection = connection
        self.mapping = mapping
        self.options = options
        self.asker = Asker(connection, announce)
        self.blocks: list[Finding] = []
        self.bound: tuple[Binding, Relation, Relation] | None = None
        self.shape: tuple[Filled, ...] | None = None
        self.temporary = False

    def read(
        self, source_schema: str | None, target_schema: str | None, steps: Callable[[Binding], Iterable[Step]]
    ) -> Plan:
        """All but the sample, in the caller's transaction."""
        asker, mapping = self.asker, self.mapping
        (server,) = asker.facts("the server", "server") or [{}]
        self._check_server(server)
        recorded = asker.ask("where the target tables are", lambda: recorded_target(self.connection))
        source = self._find(mapping.source_table, source_schema or mapping.source_schema, "")
        target = self._find(
            mapping.target.name,
            target_schema or mapping.target_schema or recorded,
            "Run spine-migrate db upgrade, or name its schema with --target-schema.",
        )
        plan = Plan(
            mapping=mapping.name,
            digest=mapping.digest,
            server_version=server.get("version", ""),
            role=server.get("role", ""),
            source=surroundings.describe(asker, source) if source else None,
            target=surroundings.describe(asker, target) if target else None,
            missing_columns=(),
            started=False,
            rows=None,
            keys=None,
            conflicts=None,
            links=None,
            estimate=None,
            locks=surroundings.locks(asker, [one for one in (source, target) if one]),
            long_transactions=surroundings.long_transactions(asker, self.options.long_seconds),
            missing_grants=None,
            scans=(),
            steps=(),
            unknown=(),
            blocks=(),
            warnings=(),
        )
        if source is None or target is None:
            return plan
        installed = self._check_ledger()
        binding = self._bind(source, target)
        if binding is None:
            return plan
        self.bound = binding, source, target
        self._check_keys(binding, source, target)
        started = installed and self._check_migration(binding, source, target)
        command = privileges.OFFLINE if self.options.offline else privileges.MOVE
        lacking = surroundings.lacking(asker, command, binding, source, target, ledger=installed)
        return replace(
            plan,
            missing_columns=tuple(binding.missing),
            started=started,
            missing_grants=None if lacking is None else tuple(grant.statement(plan.role) for grant in lacking),
            steps=tuple(steps(binding)),
            **self._read_data(binding, source, target),
        )

    def _read_data(self, binding: Binding, source: Relation, target: Relation) -> dict[str, Any]:
        """The fields of the plan that need a pass over the rows."""
        data = Data(self.asker, binding, source, target, self.options.examples)
        found = data.judge()
        if found is None:
            return {}
        parent = self._parent(binding, source, target)
        rejects = data.parents(*parent) if parent is not None else ()
        target_has_rows = data.target_has_rows()
        self.shape = self.asker.ask("the defaults of the target", lambda: row_shape(self.connection, target.oid))
        return {
            "rows": Rows(found.total, (*found.rejects, *(rejects or ()))),
            "keys": data.keys() if target_has_rows else None,
            "conflicts": data.conflicts(self.shape, target_has_rows=bool(target_has_rows)) if self.shape else None,
            "links": data.links(),
        }

    def finish(self, plan: Plan) -> Plan:
        """The sample, which needs a transaction of its own, and what it all comes to."""
        plan = replace(plan, estimate=self._estimate(plan))
        plan = replace(plan, scans=tuple(self.asker.scans), unknown=tuple(self.asker.unknown))
        blocks = [*self.blocks, *findings.blocking(plan)]
        if plan.rows is None and not blocks:
            why = "; ".join(f"{found.what}: {found.why}" for found in plan.unknown)
            blocks.append(Finding("not-told", f"The rows could not be judged ({why}).", "Lift that, then plan again."))
        return replace(plan, blocks=tuple(blocks), warnings=tuple(findings.warnings(plan)))

    def _estimate(self, plan: Plan) -> Estimate | None:
        if plan.rows is None or self.bound is None or self.shape is None:
            return None
        what = "the time and the room it will need"
        if not self.options.sample or not self.temporary:
            why = "no sample was asked for" if self.temporary else "the sample needs TEMPORARY on the database"
            self.asker.unknown.append(Unknown(what, why))
            return None
        binding, source, _ = self.bound
        shape = self.shape
        rows = plan.rows.total - plan.rows.rejected - (plan.keys.ours if plan.keys else 0)
        return self.asker.ask(what, lambda: estimate(self.connection, binding, source, shape, rows))

    def _check_server(self, server: dict[str, Any]) -> None:
        self.temporary = bool(server.get("temporary")) and not server.get("standby")
        if server.get("version_number", OLDEST_SERVER) < OLDEST_SERVER:
            self._block("server-version", f"The server is PostgreSQL {server['version']}.", "Use 14 or later.")
        if server.get("standby"):
            self._block("read-only", "The server is a standby and takes no writes.", "Connect to the primary.")
        elif server.get("read_only"):
            self._block(
                "read-only",
                "The session takes no writes: default_transaction_read_only is on.",
                "Use a role or a database without that setting.",
            )

    def _find(self, table: str, schema: str | None, remedy: str) -> Relation | None:
        try:
            return self.asker.ask(f"the table {table}", lambda: find(self.connection, table, schema))
        except Refused as error:
            self._block(error.precondition, error.sentence, remedy)
            return None

    def _bind(self, source: Relation, target: Relation) -> Binding | None:
        try:
            return bind(self.mapping, source, target)
        except Drift as drift:
            for difference in drift.differences:
                self._block(drift.precondition, f"{difference}.", "Mend the mapping, or the table.")
            return None

    def _parent(
        self, binding: Binding, source: Relation, target: Relation
    ) -> tuple[Binding, Relation, Relation] | None:
        """The binding of the mapping that this one's rows belong to; the engine moves that one first."""
        parent = required(binding.mapping)
        if parent is None:
            return None
        there = self._find(parent.source_table, source.name.schema, "")
        into = self._find(parent.target.name, target.name.schema, "Run spine-migrate db upgrade.")
        if there is None or into is None:
            return None
        try:
            return bind(parent, there, into), there, into
        except Drift as drift:
            self._block(drift.precondition, f"{parent.name}: {drift.sentence}", "Mend that mapping, or its table.")
            return None

    def _check_ledger(self) -> bool:
        """Whether the ledger is there; a role that may not look is told which grants it lacks."""
        try:
            self.asker.ask("the state of the ledger", lambda: ledger.require(self.connection))
        except Refused as error:
            self._block(error.precondition, error.sentence, "")
            return False
        return True

    def _check_migration(self, binding: Binding, source: Relation, target: Relation) -> bool:
        names = (binding.mapping.name, str(source.name), str(target.name))
        found = self.asker.ask("whether the migration has begun", lambda: ledger.live(self.connection, *names))
        if found is not None and found.mapping_digest != binding.mapping.digest:
            self._block(
                "mapping-changed",
                f"The mapping has changed since migration {found.migration_id} began.",
                "Restore the file, or spine-migrate undo and start again.",
            )
        return found is not None

    def _check_keys(self, binding: Binding, source: Relation, target: Relation) -> None:
        own = binding.mapping.target.key
        if not is_unique(self.connection, target.oid, own):
            self._block(
                "target-key-not-unique",
                f"No valid unique index covers {target.name}.{own} alone, so nothing keeps a row from being doubled.",
                f"Add a primary key or a unique index on {own}.",
            )
        legacy = binding.mapping.key
        if is_unique(self.connection, source.oid, legacy):
            return
        purpose = f"looking for doubles, as no unique index covers {legacy} alone"
        self.asker.announce(purpose, source)
        found = self.asker.ask(
            purpose, lambda: duplicates(self.connection, source.name, legacy, limit=self.options.examples)
        )
        if found:
            self._block(
                "key-not-unique",
                f"{source.name}.{legacy} is not unique: {', '.join(found)} stand more than once.",
                "Remove the doubles: a row cannot be told from its double.",
            )

    def _block(self, code: str, sentence: str, remedy: str) -> None:
        self.blocks.append(Finding(code, sentence, remedy))
