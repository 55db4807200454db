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
where id = any (array(
  select id from zapwatch_quarantine where received_at < $1 order by received_at limit 1000 for update skip locked
));

-- name: prune_unknown_instances
-- Forget unregistered instances without events since $1, a few at a time.
with old as (
  select gateway_id, instance from zapwatch_unknown_instances where last_at < $1 limit 1000 for update skip locked
)
delete from zapwatch_unknown_instances u using old where u.gateway_id = old.gateway_id and u.instance = old.instance;
