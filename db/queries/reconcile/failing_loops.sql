-- name: note_failing_loop
-- Note that a process's background loop is failing, and that it still is.
insert into zapwatch_failing_loops (process, host, loop, failing_since, error, seen_at)
values ($1, $2, $3, $4, $5, now())
on conflict (process, loop) do update
set failing_since = excluded.failing_since, error = excluded.error, seen_at = excluded.seen_at;

-- name: withdraw_failing_loop
-- Note that a process's background loop is failing no longer.
delete from zapwatch_failing_loops where process = $1 and loop = $2;

-- name: read_failing_loops
-- The background loops that are failing in any process, the longest first; rows not seen for $1 are left out.
select loop, host, failing_since, error
from zapwatch_failing_loops
where seen_at > now() - $1::interval
order by failing_since, loop;

-- name: forget_failing_loops
-- Forget what processes that were killed have left.
delete from zapwatch_failing_loops where seen_at < $1;
