-- name: read_timeline
-- The timeline that a server writes on, eight hexadecimal digits; each promotion begins a new one.
select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
