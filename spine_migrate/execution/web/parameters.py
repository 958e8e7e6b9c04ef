"""Query and path parameters that several operations share, with the bounds that PostgreSQL and a worker have."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query

from spine_migrate.execution.invariants import LARGEST_INTEGER, LENGTHS
from spine_migrate.execution.runs import RunStatus
from spine_migrate.execution.web.models import NO_NUL, Kind, Moment

#: How many runs one answer may have.
LARGEST_PAGE = 1000

RunId = Annotated[UUID, Path(description="The run's id.")]
ByStatus = Annotated[RunStatus | None, Query()]
ByKind = Annotated[Kind | None, Query()]
ByName = Annotated[str | None, Query(max_length=LENGTHS["name"], pattern=NO_NUL)]
ByLane = Annotated[str | None, Query(max_length=LENGTHS["lane"], pattern=NO_NUL)]
ByTag = Annotated[str | None, Query(pattern=NO_NUL, description="A key of the tags, or key=value.")]
ByParent = Annotated[UUID | None, Query(description="The run that these are children of.")]
Since = Annotated[Moment | None, Query(description="Created then or later; with a zone.")]
Until = Annotated[Moment | None, Query(description="Created before; with a zone.")]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE)]
Offset = Annotated[int, Query(ge=0, le=LARGEST_INTEGER)]
