"""The demonstration database: capture-spine's legacy schema (``legacy.sql``) and what fills it (``generate``)."""
