"""A small application as it is before it adopts the shims: Celery, the task modules of capture-spine, and a producer.

runbooks/adopt-shims.md is executed on a copy of it, by tests/acceptance/test_adopt_shims_runbook.py.
"""
