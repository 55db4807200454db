-- name: notify
-- Sends a notice to whoever listens.
select pg_notify($1, $2);

-- name: answer
-- Has the server show that it is there.
select 1;
