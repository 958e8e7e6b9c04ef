"""spine-migrate: move a live system onto one runs / run_events ledger, with proof and a way back."""

from __future__ import annotations

__version__ = "0.1.0"
