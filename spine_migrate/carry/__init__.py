"""Carrying legacy rows to the target: what the backfill and the change applier share."""
