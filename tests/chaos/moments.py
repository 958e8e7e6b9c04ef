"""Moments of an offline load at which it is struck: in the load, and while an index or a foreign key is being built."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import psycopg

from tests.chaos.patient import LONGEST, Patient

_MAPPINGS = ("capture-spine/executions", "capture-spine/execution_events")


@dataclass(frozen=True, order=True)
class Moment:
    """``entity`` is 0 for the executions, 1 for their events; ``share`` of its rows, or of its objects, is done."""

    entity: int
    building: bool
    share: float

    @contextmanager
    def reached(self, patient: Patient, tool: subprocess.Popen[str]) -> Iterator[None]:
        """The block begins when the tool is there, or has ended. Where it builds, it is held at the end of the
        transaction until the block ends: the object is built and nobody can see it yet.
        """
        if not self.building:
            first, last = ((0, patient.executions), (patient.executions, patient.rows))[self.entity]
            patient.reach(first + int(self.share * (last - first)), tool)
            yield
            return
        gate = psycopg.connect(patient.url)
        try:
            self._hold(gate, patient, tool)
            yield
        finally:
            gate.close()

    def _hold(self, gate: psycopg.Connection[Any], patient: Patient, tool: subprocess.Popen[str]) -> None:
        """Lock the record of an object that is to be built, as soon as there is one; wait until the tool wants it."""
        end = time.monotonic() + LONGEST
        while tool.poll() is None and time.monotonic() < end:
            objects = gate.execute(
                "SELECT migration_id, ordinal FROM spine_migrate.deferred_ddl JOIN spine_migrate.migration m"
                " USING (migration_id) WHERE m.mapping = %s ORDER BY ordinal",
                [_MAPPINGS[self.entity]],
            ).fetchall()
            if objects:
                locked = gate.execute(
                    "SELECT FROM spine_migrate.deferred_ddl WHERE (migration_id, ordinal) = (%s, %s) FOR UPDATE",
                    objects[int(self.share * len(objects))],
                )
                # None where it was built meanwhile; then another one.
                if locked.rowcount:
                    patient.held_up(gate, tool)
                    return
            gate.rollback()
            time.sleep(0.002)


def moments(chance: random.Random, count: int) -> list[Moment]:
    """In the order in which an offline load meets them; the first ones drawn are in its buildings."""
    phases = islice(cycle([(0, True), (1, True), (0, False), (1, False)]), count)
    return sorted(Moment(entity, building, chance.random()) for entity, building in phases)
