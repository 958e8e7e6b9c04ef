"""Who watches a migration: hooks, metrics and the log as JSON, each an observer of ``spine_migrate.notices``."""
