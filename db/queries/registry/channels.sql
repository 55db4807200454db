-- name: revoke_webhook_tokens
-- End the webhook tokens of a channel or of a gateway.
update zapwatch_tokens set revoked_at = now()
where (channel_id = $1 or gateway_id = $2) and kind <> 'operator' and revoked_at is null;

-- name: find_channels_of_instances
-- The channels of instances, by gateway and instance.
select c.gateway_id, c.instance, c.channel_id, c.tenant_id
from unnest($1::uuid[], $2::text[]) as k (gateway_id, instance)
cross join lateral (
  select * from zapwatch_channels
  where gateway_id = k.gateway_id and instance = k.instance and not removed
  limit 1
) c;

-- name: release_instances
-- Free instances whose channels another application deleted.
update zapwatch_channels c set removed = true from notification_channels n
where c.gateway_id = $1 and c.instance = any ($2::text[]) and not c.removed
  and n.id = c.channel_id and n.deleted_at is not null;

-- name: insert_notification_channel
-- Write the channel's row that other applications read.
insert into notification_channels (id, tenant_id, provider, metadata) values ($1, $2, $3, $4::text::jsonb);

-- name: insert_channel
-- Register the channel.
insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, name, api_key, put_by)
values ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: insert_state
-- Write a new channel's state, unknown, with a first probe when it can be probed.
insert into zapwatch_states (channel_id, tenant_id, probe_due_at) values ($1, $2, case when $3 then now() end);

-- name: lock_channel
-- A channel with its state row locked, before any other lock, as apply does; nothing when it is another tenant's.
select c.channel_id, c.tenant_id, c.gateway_id, c.provider, c.instance, c.name, c.api_key is not null as keyed,
  c.paused_at
from zapwatch_channels c join zapwatch_states s using (channel_id) join notification_channels n on n.id = c.channel_id
where c.channel_id = $1 and ($2::uuid is null or c.tenant_id = $2) and not c.removed and n.deleted_at is null
for no key update of s;

-- name: update_channel
-- Change a registration.
update zapwatch_channels set name = $2, gateway_id = $3 where channel_id = $1;

-- name: update_channel_key
-- Replace a channel's sealed key, null for none.
update zapwatch_channels set api_key = $2 where channel_id = $1;

-- name: put_by_tenant
-- Note that a tenant gave the channel's address or key: what is seen of it is evidence for that tenant's channels alone.
update zapwatch_channels set put_by = 'tenant' where channel_id = $1;

-- name: gateway_facts
-- A gateway's address, and whether it has a key.
select base_url, api_key is not null as keyed from zapwatch_gateways where id = $1;

-- name: lock_metadata
-- A channel's metadata, held until the end of the transaction.
select metadata::text as metadata from notification_channels where id = $1 for no key update;

-- name: merge_metadata
-- Set some keys of a channel's metadata and remove others; other applications' keys stay as it is.
update notification_channels
set metadata = (
    case when jsonb_typeof(metadata::jsonb) = 'object' then metadata::jsonb else '{}' end || $2::text::jsonb
  ) - $3::text[],
  updated_at = now()
where id = $1;

-- name: pause_channel
-- Stop probes and incidents of a channel; pausing twice keeps the first time.
update zapwatch_channels set paused_at = coalesce(paused_at, now()) where channel_id = $1;

-- name: resume_channel
-- End a pause.
update zapwatch_channels set paused_at = null where channel_id = $1;

-- name: make_channel_due
-- Make a channel's deadline due, so that its rules are read again, and its probe, if it can be probed.
update zapwatch_states set due_at = now(), probe_due_at = case when $2 then now() end where channel_id = $1;

-- name: delete_notification_channel
-- Delete the channel softly for other applications; a trigger makes its deadline due.
update notification_channels set deleted_at = now(), updated_at = now() where id = $1 and deleted_at is null;

-- name: remove_channel
-- Free the channel's instance and end its webhook tokens.
update zapwatch_channels set removed = true where channel_id = $1;
