-- The next job gets a key after all others but the one at the end of bigint; the planner learns what is there.
SELECT setval(pg_get_serial_sequence('jobs', 'job_id'), (SELECT 3 * count(*) + 3 FROM jobs));
ANALYZE executions, execution_events, jobs, spine_demo.awkward_row
