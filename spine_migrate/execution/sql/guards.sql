-- name: acquire
-- Take a lock that is free, has expired or is the holder's own. The fence of a row that stands is drawn after the row is
-- locked: one drawn before a wait could be smaller than that of the holder it waited for.
INSERT INTO {run_guard} AS guard (entity_type, entity_id, fence, holder, expires_at)
VALUES (
    %(entity_type)s, %(entity_id)s, nextval({run_fence}), %(holder)s,
    clock_timestamp() + %(ttl)s * interval '1 millisecond'
)
ON CONFLICT (entity_type, entity_id) DO UPDATE
   SET fence = nextval({run_fence}), holder = excluded.holder,
       expires_at = clock_timestamp() + %(ttl)s * interval '1 millisecond'
 WHERE guard.holder = excluded.holder OR guard.expires_at <= clock_timestamp()
RETURNING fence;

-- name: renew
-- Extend a lock that has not expired.
UPDATE {run_guard}
   SET expires_at = clock_timestamp() + %(ttl)s * interval '1 millisecond'
 WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
   AND fence = %(fence)s AND expires_at > clock_timestamp();

-- name: release
-- End a lock. The row stays: a DELETE would let a fence that was drawn before it be inserted after it.
UPDATE {run_guard}
   SET expires_at = clock_timestamp()
 WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
   AND fence = %(fence)s AND expires_at > clock_timestamp();

-- name: held
-- Who has a lock.
SELECT holder, fence
  FROM {run_guard}
 WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND expires_at > clock_timestamp();
