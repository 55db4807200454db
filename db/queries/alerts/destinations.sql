-- name: list_destinations
-- One page of destinations in the order of ids: a tenant's, or of all tenants and operators.
select id, tenant_id, kind, name, config, events, reminder_minutes, created_at, updated_at, failing_since, disabled_at,
  disabled_why
from zapwatch_destinations
where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or id > $2)
order by id
limit $3;

-- name: show_destination
-- One destination, if it is this tenant's.
select id, tenant_id, kind, name, config, events, reminder_minutes, created_at, updated_at, failing_since, disabled_at,
  disabled_why
from zapwatch_destinations
where id = $1 and ($2::uuid is null or tenant_id = $2);

-- name: lock_destination
-- One destination, if it is this tenant's, held until the end of the transaction.
select id, tenant_id, kind, name, config, events, reminder_minutes, disabled_at
from zapwatch_destinations
where id = $1 and ($2::uuid is null or tenant_id = $2)
for no key update;

-- name: insert_destination
-- Write a destination; its configuration is sealed.
insert into zapwatch_destinations (id, tenant_id, kind, name, config, events, reminder_minutes)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: insert_in_app
-- Add a tenant's `in_app` destination, unless it has it.
insert into zapwatch_destinations (id, tenant_id, kind, config) values ($1, $2, 'in_app', $3)
on conflict (tenant_id) where kind = 'in_app' do nothing;

-- name: find_in_app
-- A tenant's `in_app` destination.
select id from zapwatch_destinations where tenant_id = $1 and kind = 'in_app';

-- name: update_destination
-- Change a destination; one with a new configuration no longer counts as failing.
update zapwatch_destinations
set name = $2, config = coalesce($3, config), events = $4, reminder_minutes = $5, updated_at = now(),
  failing_since = case when $3::bytea is null then failing_since end
where id = $1;

-- name: enable_destination
-- Enable a destination, or (false) disable it for an operator; disabling it twice keeps the first time.
update zapwatch_destinations
set updated_at = now(),
  failing_since = case when $2 then null else failing_since end,
  disabled_at = case when $2 then null else coalesce(disabled_at, now()) end,
  disabled_why = case when $2 then null else coalesce(disabled_why, 'operator') end
where id = $1;

-- name: delete_destination
-- Delete a destination, with its messages.
delete from zapwatch_destinations where id = $1;

-- name: lock_alert_url
-- Let one process at a time decide whether the setting's destination is there already.
select pg_advisory_xact_lock(hashtextextended('zapwatch alert url', 0));

-- name: operators_destinations
-- The destinations of operators, in the order in which they were made.
select id, kind, name, config from zapwatch_destinations where tenant_id is null order by created_at, id;

-- name: redirect_destination
-- Change a destination's kind and configuration, as if it were new.
update zapwatch_destinations
set kind = $2, config = $3, updated_at = now(), failing_since = null, disabled_at = null, disabled_why = null
where id = $1;

-- name: language_of
-- The language and time zone of messages to a tenant.
select locale, time_zone from tenants where id = $1;
