-- name: insert_token
-- Keeps a token's hash; never the token.
insert into zapwatch_tokens (hash, kind, tenant_id, channel_id, gateway_id, name) values ($1, $2, $3, $4, $5, $6);

-- name: lock_first_token
-- Lets one process at a time decide whether a first operator's token is needed.
select pg_advisory_xact_lock(hashtextextended('zapwatch first operator token', 0));

-- name: operator_token_exists
-- Whether an operator's token was ever made.
select exists (select from zapwatch_tokens where kind = 'operator');

-- name: revoke_webhook_tokens
-- Ends the webhook tokens of a channel or of a gateway.
update zapwatch_tokens set revoked_at = now()
where (channel_id = $1 or gateway_id = $2) and kind <> 'operator' and revoked_at is null;

-- name: find_operators
-- Whose tokens these hashes are.
select hash, tenant_id, name from zapwatch_tokens
where hash = any ($1::bytea[]) and kind = 'operator' and revoked_at is null;

-- name: find_webhook_targets
-- Which channels or gateways webhook tokens belong to; removed channels have none.
select t.hash as token_hash, t.kind, c.tenant_id, c.channel_id, g.id as gateway_id, g.provider, c.instance, g.version,
  g.clock, t.secret_hash
from zapwatch_tokens t
left join zapwatch_channels c on c.channel_id = t.channel_id and not c.removed
join zapwatch_gateways g on g.id = coalesce(c.gateway_id, t.gateway_id)
where t.hash = any ($1::bytea[]) and t.kind in ('channel', 'gateway') and t.revoked_at is null
  and (t.kind = 'gateway' or c.channel_id is not null);

-- name: find_channels_of_instances
-- The channels that instances of gateways are.
select c.gateway_id, c.instance, c.channel_id, c.tenant_id
from unnest($1::uuid[], $2::text[]) as k (gateway_id, instance)
cross join lateral (
  select * from zapwatch_channels
  where gateway_id = k.gateway_id and instance = k.instance and not removed
  limit 1
) c;

-- name: lock_default_tenant
-- Lets one registration at a time make the tenant `default`.
select pg_advisory_xact_lock(hashtextextended('zapwatch default tenant', 0));

-- name: find_default_tenant
-- The tenant of channels registered without one.
select id from tenants where name = 'default' order by created_at, id limit 1;

-- name: tenant_exists
-- Whether there is such a tenant.
select exists (select from tenants where id = $1);

-- name: insert_tenant
-- Makes a tenant.
insert into tenants (name, locale, time_zone, defaults) values ($1, $2, $3, $4::text::jsonb) returning id;

-- name: lock_tenant
-- A tenant's row, held until the end of the transaction.
select id, name, locale, time_zone, defaults::text as defaults from tenants where id = $1 for no key update;

-- name: update_tenant
-- Writes a tenant's settings.
update tenants set name = $2, locale = $3, time_zone = $4, defaults = $5::text::jsonb, updated_at = now() where id = $1;

-- name: make_tenant_due
-- Has the rules of all channels of a tenant looked at again; locks in the order that apply uses.
with due as (
  select channel_id from zapwatch_states where tenant_id = $1 order by channel_id for no key update
)
update zapwatch_states s set due_at = now() from due where s.channel_id = due.channel_id;

-- name: upsert_gateway
-- The gateway at an address, made when unknown, locked either way so that registrations on it follow one another
-- (without touching a key column: that would block foreign keys that refer to it).
insert into zapwatch_gateways (provider, base_url, version_due_at) values ($1, $2, case when $2 <> '' then now() end)
on conflict (provider, base_url) do update set name = zapwatch_gateways.name
returning id, api_key is not null as keyed, base_url;

-- name: gateway_registered
-- Whether somebody registered this gateway itself, and not only a channel on it.
select exists (select from zapwatch_gateways where id = $1 and api_key is not null)
  or exists (select from zapwatch_tokens where gateway_id = $1 and kind = 'gateway');

-- name: update_gateway
-- Gives a gateway its name and sealed key.
update zapwatch_gateways set name = $2, api_key = $3 where id = $1;

-- name: update_gateway_key
-- Gives a gateway its sealed key.
update zapwatch_gateways set api_key = $2 where id = $1;

-- name: gateway_to_list
-- What is needed to ask a gateway for its instances.
select provider, base_url, api_key from zapwatch_gateways where id = $1;

-- name: lock_gateway
-- A gateway's row, held until the end of the transaction, so that registrations on it follow one another.
select from zapwatch_gateways where id = $1 for no key update;

-- name: import_notification_channels
-- Makes the channels that applications see, of instances that a gateway lists.
insert into notification_channels (id, tenant_id, provider, phone_number, profile_name)
select u.id, $1, $2, u.phone, u.profile from unnest($3::uuid[], $4::text[], $5::text[]) as u (id, phone, profile);

-- name: import_channels
-- Registers the channels of listed instances with us.
insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, name, api_key, listed_key_hash)
select u.id, $1, $2, $3, u.instance, u.name, u.api_key, u.hash
from unnest($4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::bytea[]) as u (id, instance, name, api_key, hash);

-- name: listed_keys
-- The sealed keys of the channels that instances of a gateway are, and hashes of those that it listed before.
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

-- name: probe_channels
-- Have channels looked at and probed now, those that are probed at all.
with due as (
  select channel_id from zapwatch_states where channel_id = any ($1::uuid[]) and probe_due_at is not null
  order by channel_id for no key update
)
update zapwatch_states s set due_at = now(), probe_due_at = now() from due where s.channel_id = due.channel_id;

-- name: import_states
-- Gives listed channels their state, unknown, and a first probe when they can be probed; one with an owner was open once.
insert into zapwatch_states (channel_id, tenant_id, memory, probe_due_at)
select u.id, $1, case when u.has_been_open then '{"has_been_open": true}' else '{}' end::jsonb,
  case when g.base_url <> '' and coalesce(c.api_key, g.api_key) is not null then now() end
from unnest($2::uuid[], $3::boolean[]) as u (id, has_been_open)
join zapwatch_channels c on c.channel_id = u.id
join zapwatch_gateways g on g.id = c.gateway_id;

-- name: probe_gateway_channels
-- Makes the channels due and has them probed that became configured by their gateway's key.
with due as (
  select s.channel_id from zapwatch_states s join zapwatch_channels c using (channel_id)
  where c.gateway_id = $1 and c.instance is not null and c.paused_at is null and not c.removed
    and s.probe_due_at is null
  order by s.channel_id for no key update of s
)
update zapwatch_states s set due_at = now(), probe_due_at = now() from due where s.channel_id = due.channel_id;

-- name: release_instances
-- Frees instances whose channels were deleted by an application beside us.
update zapwatch_channels c set removed = true from notification_channels n
where c.gateway_id = $1 and c.instance = any ($2::text[]) and not c.removed
  and n.id = c.channel_id and n.deleted_at is not null;

-- name: insert_notification_channel
-- Makes the channel that applications see.
insert into notification_channels (id, tenant_id, provider, metadata) values ($1, $2, $3, $4::text::jsonb);

-- name: insert_channel
-- Registers the channel with us.
insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, name, api_key)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: insert_state
-- Gives a new channel its state, unknown, and a first probe when it can be probed.
insert into zapwatch_states (channel_id, tenant_id, probe_due_at) values ($1, $2, case when $3 then now() end);

-- name: lock_channel
-- A channel with its state row held, first of all locks, as apply does; nothing when it is another tenant's.
select c.channel_id, c.tenant_id, c.gateway_id, c.provider, c.instance, c.name, c.api_key is not null as keyed,
  c.paused_at
from zapwatch_channels c join zapwatch_states s using (channel_id) join notification_channels n on n.id = c.channel_id
where c.channel_id = $1 and ($2::uuid is null or c.tenant_id = $2) and not c.removed and n.deleted_at is null
for no key update of s;

-- name: update_channel
-- Writes what an operator may change of a registration.
update zapwatch_channels set name = $2, gateway_id = $3 where channel_id = $1;

-- name: update_channel_key
-- Replaces a channel's sealed key, null for none.
update zapwatch_channels set api_key = $2 where channel_id = $1;

-- name: gateway_facts
-- What the configuration of a channel needs to know of its gateway.
select base_url, api_key is not null as keyed from zapwatch_gateways where id = $1;

-- name: lock_metadata
-- A channel's metadata, held until the end of the transaction.
select metadata::text as metadata from notification_channels where id = $1 for no key update;

-- name: merge_metadata
-- Sets some keys of a channel's metadata and removes others; what applications keep beside them stays as it is.
update notification_channels
set metadata = (
    case when jsonb_typeof(metadata::jsonb) = 'object' then metadata::jsonb else '{}' end || $2::text::jsonb
  ) - $3::text[],
  updated_at = now()
where id = $1;

-- name: pause_channel
-- Stops probes and incidents of a channel; pausing twice keeps the first time.
update zapwatch_channels set paused_at = coalesce(paused_at, now()) where channel_id = $1;

-- name: resume_channel
-- Ends a pause.
update zapwatch_channels set paused_at = null where channel_id = $1;

-- name: make_channel_due
-- Has a channel's rules looked at again, and probed now if it can be probed.
update zapwatch_states set due_at = now(), probe_due_at = case when $2 then now() end where channel_id = $1;

-- name: delete_notification_channel
-- Deletes the channel that applications see, softly; a trigger makes it due.
update notification_channels set deleted_at = now(), updated_at = now() where id = $1 and deleted_at is null;

-- name: remove_channel
-- Frees the channel's instance and ends its webhook tokens.
update zapwatch_channels set removed = true where channel_id = $1;

-- name: unadopted_channels
-- The next channels, in the order of ids, that we lack although an application made them and didn't delete them.
select n.id, n.tenant_id, n.provider::text as provider, n.credentials::text as credentials
from notification_channels n
left join zapwatch_channels c on c.channel_id = n.id
left join zapwatch_states s on s.channel_id = n.id
where (c.channel_id is null or s.channel_id is null) and n.id > $1
  and n.tenant_id is not null and n.deleted_at is null and n.provider::text = any($2::text[])
order by n.id
limit $3;

-- name: adopt_gateways
-- The gateways at these addresses, made when unknown.
insert into zapwatch_gateways (provider, base_url, version_due_at)
select g.provider, g.base_url, case when g.base_url <> '' then now() end
from unnest($1::text[], $2::text[]) as g (provider, base_url)
on conflict (provider, base_url) do update set name = zapwatch_gateways.name
returning id, provider, base_url;

-- name: adopt_channels
-- Registers found channels; one whose instance is taken is passed over, and its id is not among the answers.
insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, api_key)
select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bytea[])
on conflict do nothing
returning channel_id;

-- name: adopt_states
-- Gives found channels their state: they have been open before, their rules are looked at, and who can be is probed.
insert into zapwatch_states (channel_id, tenant_id, memory, due_at, probe_due_at)
select c.channel_id, c.tenant_id, '{"has_been_open": true}', now(),
  case when g.base_url <> '' and c.instance is not null and coalesce(c.api_key, g.api_key) is not null then now() end
from zapwatch_channels c left join zapwatch_gateways g on g.id = c.gateway_id
where c.channel_id = any($1::uuid[])
on conflict do nothing;

-- name: provider_of
-- The provider of a channel that isn't removed, or of a gateway.
select coalesce(
  (select provider from zapwatch_channels where channel_id = $1 and not removed),
  (select provider from zapwatch_gateways where id = $2));
