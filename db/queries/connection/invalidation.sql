-- name: notify
-- Send a notice to all listening processes.
select pg_notify($1, $2);

-- name: answer
-- Check that the server answers.
select 1;
