"""The demonstration database: capture-spine's legacy schema (``legacy.sql``) and a generator that fills it (``generate``)."""
