-- name: lock_gateway
-- A gateway's row, held until the end of the transaction, so that registrations on it follow one another.
select from zapwatch_gateways where id = $1 for no key update;

-- name: import_notification_channels
-- Write the rows that other applications read, for instances that a gateway lists.
insert into notification_channels (id, tenant_id, provider, phone_number, profile_name)
select u.id, $1, $2, u.phone, u.profile from unnest($3::uuid[], $4::text[], $5::text[]) as u (id, phone, profile);

-- name: import_channels
-- Register the channels of listed instances.
insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, name, api_key, listed_key_hash, put_by)
select u.id, $1, $2, $3, u.instance, u.name, u.api_key, u.hash, 'operator'
from unnest($4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::bytea[]) as u (id, instance, name, api_key, hash);

-- name: listed_keys
-- The sealed keys of a gateway's channels by their instances, and hashes of the keys that it listed before.
select channel_id, instance, api_key, listed_key_hash from zapwatch_channels
where gateway_id = $1 and instance = any ($2::text[]) and not removed;

-- name: note_listed_keys
-- Note which keys a gateway lists for its channels, and give them to those whose key is still as it was read; their
-- state rows are held first, as apply does.
with held as (
  select channel_id from zapwatch_states where channel_id = any ($1::uuid[]) order by channel_id for no key update
)
update zapwatch_channels c
set api_key = coalesce(u.api_key, c.api_key), listed_key_hash = u.hash
from unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[]) as u (channel_id, read, api_key, hash)
join held using (channel_id)
where c.channel_id = u.channel_id and c.api_key = u.read;

-- name: own_keys
-- The sealed keys that channels of a gateway have of their own, without those that tenants gave.
select c.channel_id, c.instance, c.api_key as sealed
from zapwatch_channels c join notification_channels n on n.id = c.channel_id
where c.gateway_id = $1 and c.api_key is not null and c.instance is not null and not c.removed and n.deleted_at is null
  and c.put_by is distinct from 'tenant';

-- name: replace_keys
-- Replace the keys of channels (null: by none) that are still as they were read, and note those that the gateway lists;
-- their state rows are held first, as apply does.
with held as (
  select channel_id from zapwatch_states where channel_id = any ($1::uuid[]) order by channel_id for no key update
)
update zapwatch_channels c
set api_key = u.api_key, listed_key_hash = u.hash
from unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[]) as u (channel_id, read, api_key, hash)
join held using (channel_id)
where c.channel_id = u.channel_id and c.api_key = u.read
returning c.channel_id;

-- name: probe_channels
-- Make deadlines and probes of channels due now, of those that are probed at all.
with due as (
  select channel_id from zapwatch_states where channel_id = any ($1::uuid[]) and probe_due_at is not null
  order by channel_id for no key update
)
update zapwatch_states s set due_at = now(), probe_due_at = now() from due where s.channel_id = due.channel_id;

-- name: import_states
-- Write the states of listed channels, unknown, with a first probe when they can be probed; one with an owner was open.
insert into zapwatch_states (channel_id, tenant_id, memory, probe_due_at)
select u.id, $1, case when u.has_been_open then '{"has_been_open": true}' else '{}' end::jsonb,
  case when g.base_url <> '' and coalesce(c.api_key, g.api_key) is not null then now() end
from unnest($2::uuid[], $3::boolean[]) as u (id, has_been_open)
join zapwatch_channels c on c.channel_id = u.id
join zapwatch_gateways g on g.id = c.gateway_id;
