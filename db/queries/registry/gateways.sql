-- name: upsert_gateway
-- The gateway at an address, made when unknown, locked either way so that registrations on it follow one another
-- (without touching a key column: that would block foreign keys that refer to it).
insert into zapwatch_gateways (provider, base_url, version_due_at) values ($1, $2, case when $2 <> '' then now() end)
on conflict (provider, base_url) do update set name = zapwatch_gateways.name
returning id, api_key is not null as keyed, base_url;

-- name: gateway_registered
-- Whether this gateway itself is registered, and not only a channel on it.
select exists (select from zapwatch_gateways where id = $1 and api_key is not null)
  or exists (select from zapwatch_tokens where gateway_id = $1 and kind = 'gateway');

-- name: update_gateway
-- Set a gateway's name and sealed key.
update zapwatch_gateways set name = $2, api_key = $3 where id = $1;

-- name: update_gateway_key
-- Set a gateway's sealed key.
update zapwatch_gateways set api_key = $2 where id = $1;

-- name: gateway_to_list
-- A gateway's provider, address and key, for listing its instances.
select provider, base_url, api_key from zapwatch_gateways where id = $1;

-- name: probe_gateway_channels
-- Make deadlines and probes of the channels due that became configured by their gateway's key.
with due as (
  select s.channel_id from zapwatch_states s join zapwatch_channels c using (channel_id)
  where c.gateway_id = $1 and c.instance is not null and c.paused_at is null and not c.removed
    and s.probe_due_at is null
  order by s.channel_id for no key update of s
)
update zapwatch_states s set due_at = now(), probe_due_at = now() from due where s.channel_id = due.channel_id;
