-- name: lock_migrations
-- Let one session at a time migrate this database, until its transaction ends.
select pg_advisory_xact_lock(hashtextextended('zapwatch migrations', 0));

-- name: limit_migration
-- Set for this transaction where names are looked up and how long a lock is waited for; nothing else ends it.
select set_config('search_path', 'public, pg_temp', true), set_config('lock_timeout', $1, true),
  set_config('statement_timeout', '0', true), set_config('zapwatch.tenant_id', '', true);

-- name: migrations_table_exists
-- Whether this database was ever migrated.
select to_regclass('public.zapwatch_migrations') is not null;

-- name: create_migrations_table
-- Make the table of applied migrations.
create table public.zapwatch_migrations (
  name text primary key,
  checksum text not null,
  applied_at timestamptz not null default now()
);

-- name: close_migrations_table
-- Hide the table of applied migrations from all but its owner, before the owner's policy is made.
alter table public.zapwatch_migrations enable row level security;

-- name: applied_migrations
-- The applied migrations with their checksums.
select name, checksum from public.zapwatch_migrations;

-- name: record_migration
-- Note that a migration is applied.
insert into public.zapwatch_migrations (name, checksum) values ($1, $2);
