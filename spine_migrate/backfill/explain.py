"""The statements of a batch as the plan shows them: the very ones that will run, for a range of blocks."""

from __future__ import annotations

from spine_migrate.carry.links import await_links
from spine_migrate.carry.scope import Blocks
from spine_migrate.carry.statements import Rejects, Statements
from spine_migrate.db.queries import query
from spine_migrate.mapping.bind import Binding
from spine_migrate.plan.model import Step


def batch_steps(binding: Binding) -> list[Step]:
    """In the order in which one batch runs them. ``$n`` are the batch's range, its rejects and the like."""
    statements = Statements(binding, None)
    scope = Blocks(binding.source, "(0,0)", "(0,0)")
    reading = f"ACCESS SHARE on {binding.source}"
    judge, _ = statements.judge(scope, "(0,0)", 1, orphans=False)
    links, _ = await_links(statements, 0, scope, ["(0,0)"], Rejects())
    waiting = {name: ["(0,0)"] for name in statements.links}
    insert, _ = statements.insert(scope, ["(0,0)"], waiting)
    reject, _ = statements.quarantine(0, scope, Rejects(judged=["(0,0)"]), orphans=False)
    return [
        Step("Judge the rows of a batch", judge.as_string(None), reading),
        *(
            [
                Step(
                    "Remember links whose row has not arrived",
                    links.as_string(None),
                    f"{reading} and {binding.target}, ROW EXCLUSIVE on the ledger",
                )
            ]
            if statements.links
            else []
        ),
        Step("Insert those that pass", insert.as_string(None), f"{reading}, ROW EXCLUSIVE on {binding.target}"),
        Step("Put the others in quarantine", reject.as_string(None), f"{reading}, ROW EXCLUSIVE on the ledger"),
        Step("Move the checkpoint", query("backfill", "advance").replace("%%", "%"), "ROW EXCLUSIVE on the ledger"),
    ]
