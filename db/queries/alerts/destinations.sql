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
-- Keeps where somebody is to be told; its configuration is sealed.
insert into zapwatch_destinations (id, tenant_id, kind, name, config, events, reminder_minutes)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: insert_in_app
-- Gives a tenant its one destination inside its application, unless it has it.
insert into zapwatch_destinations (id, tenant_id, kind, config) values ($1, $2, 'in_app', $3)
on conflict (tenant_id) where kind = 'in_app' do nothing;

-- name: find_in_app
-- A tenant's destination inside its application.
select id from zapwatch_destinations where tenant_id = $1 and kind = 'in_app';

-- name: update_destination
-- Writes what may change of a destination; one with a new configuration fails no more, until it is tried.
update zapwatch_destinations
set name = $2, config = coalesce($3, config), events = $4, reminder_minutes = $5, updated_at = now(),
  failing_since = case when $3::bytea is null then failing_since end
where id = $1;

-- name: enable_destination
-- Has a destination told again, or (false) no more by an operator's word; saying it twice keeps the first time.
update zapwatch_destinations
set updated_at = now(),
  failing_since = case when $2 then null else failing_since end,
  disabled_at = case when $2 then null else coalesce(disabled_at, now()) end,
  disabled_why = case when $2 then null else coalesce(disabled_why, 'operator') end
where id = $1;

-- name: delete_destination
-- Forgets a destination, with what was to be sent there and what was sent.
delete from zapwatch_destinations where id = $1;

-- name: lock_alert_url
-- Lets one process at a time decide whether the setting's destination is there already.
select pg_advisory_xact_lock(hashtextextended('zapwatch alert url', 0));

-- name: operators_destinations
-- The destinations of operators, in the order in which they were made.
select id, kind, name, config from zapwatch_destinations where tenant_id is null order by created_at, id;

-- name: redirect_destination
-- Has a destination lead elsewhere, as if it were new there.
update zapwatch_destinations
set kind = $2, config = $3, updated_at = now(), failing_since = null, disabled_at = null, disabled_why = null
where id = $1;

-- name: tongue_of
-- In which language and time zone a tenant is told.
select locale, time_zone from tenants where id = $1;
