"""Old import: ``from market_spine.jobs.ingest import ingest_otc_legacy``.
New import: ``from spine_shims.market_spine.ingest import ingest_otc_legacy``.

Its runs are pipelines ``ingest_otc``. The seed has the module as ``jobs/ingest.py``, and does not say in which package.
Where that is not ``market_spine``, ``legacy_body(name="jobs.ingest.ingest_otc_legacy")`` gives the task its name; in a
process that does not import the body, ``ingest_otc_legacy.registered_as("jobs.ingest.ingest_otc_legacy")`` does.
"""

from __future__ import annotations

from spine_shims.shipped import shipped

ingest_otc_legacy = shipped(
    "market_spine.jobs.ingest.ingest_otc_legacy",
    "ingest_otc",
    "week_start",
    open_ended=False,
    replacement="dispatch('ingest_otc', {...})",
)
