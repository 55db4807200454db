-- name: write_nothing
-- Commit a write that changes no row: it fails where nothing can be written.
select pg_logical_emit_message(true, 'zapwatch heartbeat', '');
