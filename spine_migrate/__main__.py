"""``python -m spine_migrate``."""

from __future__ import annotations

from spine_migrate.cli import main

main(prog_name="spine-migrate")
