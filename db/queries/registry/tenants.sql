-- name: lock_default_tenant
-- Let one registration at a time make the tenant `default`.
select pg_advisory_xact_lock(hashtextextended('zapwatch default tenant', 0));

-- name: find_default_tenant
-- The tenant of channels registered without one.
select id from tenants where name = 'default' order by created_at, id limit 1;

-- name: tenant_exists
-- Whether there is such a tenant.
select exists (select from tenants where id = $1);

-- name: insert_tenant
-- Make a tenant.
insert into tenants (name, locale, time_zone, defaults) values ($1, $2, $3, $4::text::jsonb) returning id;

-- name: lock_tenant
-- A tenant's row, held until the end of the transaction.
select id, name, locale, time_zone, defaults::text as defaults from tenants where id = $1 for no key update;

-- name: update_tenant
-- Write a tenant's settings.
update tenants set name = $2, locale = $3, time_zone = $4, defaults = $5::text::jsonb, updated_at = now() where id = $1;

-- name: make_tenant_due
-- Make the deadlines of a tenant's channels due, so that their rules are read again; locks in the order of apply.
with due as (
  select channel_id from zapwatch_states where tenant_id = $1 order by channel_id for no key update
)
update zapwatch_states s set due_at = now() from due where s.channel_id = due.channel_id;
