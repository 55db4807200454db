-- name: insert_token
-- Keep a token's hash; never the token.
insert into zapwatch_tokens (hash, kind, tenant_id, channel_id, gateway_id, name) values ($1, $2, $3, $4, $5, $6);

-- name: lock_first_token
-- Let one process at a time decide whether a first operator's token is needed.
select pg_advisory_xact_lock(hashtextextended('zapwatch first operator token', 0));

-- name: operator_token_exists
-- Whether an operator's token was ever made.
select exists (select from zapwatch_tokens where kind = 'operator');

-- name: find_operators
-- The owners of operators' tokens, by their hashes.
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

-- name: provider_of
-- The provider of a channel that isn't removed, or of a gateway.
select coalesce(
  (select provider from zapwatch_channels where channel_id = $1 and not removed),
  (select provider from zapwatch_gateways where id = $2));
