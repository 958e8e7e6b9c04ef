-- Rows of the three tables.
SELECT
    (SELECT count(*) FROM executions) AS executions,
    (SELECT count(*) FROM execution_events) AS execution_events,
    (SELECT count(*) FROM jobs) AS jobs
