-- name: gateway_webhook_token
-- The sealed token of the address that we set on channels of a gateway, and the sealed secret beside it.
select webhook_token, webhook_secret from zapwatch_gateways where id = $1;

-- name: keep_gateway_webhook_token
-- Keep the token of the address that we set on channels of a gateway, and the secret beside it.
update zapwatch_gateways set webhook_token = $2, webhook_secret = $3 where id = $1;

-- name: keep_token_secret
-- Note which secret webhooks to a token carry.
update zapwatch_tokens set secret_hash = $2 where hash = $1;

-- name: registrations_of_gateway
-- The channels of a gateway, with what is needed to address their webhooks.
select c.channel_id, c.gateway_id, c.provider, coalesce(g.base_url, '') as base_url, c.instance,
  c.api_key as channel_key, g.api_key as gateway_key, g.version, s.traffic, s.before, s.mended_at, s.checked_at
from zapwatch_channels c
join zapwatch_gateways g on g.id = c.gateway_id
left join zapwatch_slots s using (channel_id)
where c.gateway_id = $1 and not c.removed and c.instance is not null
order by c.instance;

-- name: claim_registrations
-- Claim webhook registrations that are due for a check, and put off the next one.
with due as (
  select channel_id from zapwatch_slots where due_at <= $1 order by due_at limit $3 for no key update skip locked
), claimed as (
  update zapwatch_slots s set due_at = $2 from due where s.channel_id = due.channel_id
  returning s.channel_id, s.traffic, s.before, s.mended_at, s.checked_at
)
select c.channel_id, c.gateway_id, c.provider, coalesce(g.base_url, '') as base_url, c.instance,
  c.api_key as channel_key, g.api_key as gateway_key, g.version, s.traffic, s.before, s.mended_at, s.checked_at
from claimed s
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id
where not c.removed and c.instance is not null;

-- name: keep_registration
-- Keep a webhook registration as it was found or set; what it first replaced is kept.
insert into zapwatch_slots
  (channel_id, tenant_id, state, traffic, foreign_host, before, set_at, checked_at, mended_at, due_at)
select c.channel_id, c.tenant_id, $2, $3, $4, $5, case when $2 = 'set' then $6::timestamptz end, $6, $7, $8
from zapwatch_channels c
where c.channel_id = $1
on conflict (channel_id) do update
set
  state = excluded.state, traffic = excluded.traffic, foreign_host = excluded.foreign_host,
  before = coalesce(zapwatch_slots.before, excluded.before),
  set_at = coalesce(zapwatch_slots.set_at, excluded.set_at), checked_at = excluded.checked_at,
  mended_at = coalesce(excluded.mended_at, zapwatch_slots.mended_at), due_at = excluded.due_at;

-- name: forget_registration
-- Forget a webhook registration: what it replaced is back.
delete from zapwatch_slots where channel_id = $1;

-- name: replaced_registrations
-- The webhook registrations, of one gateway or of all, that replaced another system's address.
select c.channel_id, c.gateway_id, c.provider, coalesce(g.base_url, '') as base_url, c.instance,
  c.api_key as channel_key, g.api_key as gateway_key, g.version, s.traffic, s.before, s.mended_at, s.checked_at
from zapwatch_slots s
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id
where s.before is not null and ($1::uuid is null or g.id = $1) and not c.removed and c.instance is not null
order by c.instance;
