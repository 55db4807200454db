-- name: claim_deadlines
-- Claim channels whose deadline has come, each for one replica until the lease ends.
update zapwatch_states
set claimed_until = $2
where channel_id in (
  select channel_id
  from zapwatch_states
  where due_at <= $1 and (claimed_until is null or claimed_until < $1)
  order by due_at
  limit $3
  for update skip locked
)
returning channel_id, due_at;

-- name: claim_versions
-- Claim gateways whose version is to be read, and put off the next reading.
update zapwatch_gateways
set version_due_at = $2
where id in (
  select id
  from zapwatch_gateways
  where version_due_at <= $1 and base_url <> ''
  order by version_due_at
  limit $3
  for update skip locked
)
returning id, provider, base_url, version;

-- name: settle_version
-- Keep a gateway's version, and when to read it again.
update zapwatch_gateways
set version = $2, version_due_at = $3
where id = $1;

-- name: note_unknown_instance
-- Count an event of an instance that is not registered.
insert into zapwatch_unknown_instances (gateway_id, instance, first_at, last_at, last_state)
values ($1, $2, $3, $3, $4)
on conflict (gateway_id, instance) do update
set
  count = zapwatch_unknown_instances.count + 1,
  last_at = greatest(zapwatch_unknown_instances.last_at, excluded.last_at),
  last_state = coalesce(excluded.last_state, zapwatch_unknown_instances.last_state);

-- name: lock_quarantine
-- Let one body at a time be counted against its token's thousand.
select pg_advisory_xact_lock(hashtextextended('zapwatch quarantine ' || encode($1::bytea, 'hex'), 0));

-- name: quarantine
-- Keep an unreadable body, sealed, unless its token has a thousand already.
insert into zapwatch_quarantine (token_hash, tenant_id, provider, suffix, body, size, problem, received_at)
select $1, $2, $3, $4, $5, $6, $7, $8
where (select count(*) from zapwatch_quarantine where token_hash = $1) < 1000;

-- name: prune_quarantine
-- Forget unreadable bodies after their time, a few at a time.
delete from zapwatch_quarantine
where id in (select id from zapwatch_quarantine where received_at < $1 order by received_at limit 1000);
