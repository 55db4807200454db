-- name: diagnosed_database
-- The name and size of the database.
select current_database() as name, pg_database_size(current_database()) as bytes;

-- name: diagnosed_channels
-- Every channel that is watched, with its address and keys; first those whose last event is oldest.
select c.channel_id, c.name, c.instance, c.provider, c.gateway_id, coalesce(g.base_url, '') as base_url,
  c.api_key as channel_key, g.api_key as gateway_key, c.paused_at, s.reason, s.last_event_at, c.expires_at,
  c.put_by
from zapwatch_channels c
join notification_channels n on n.id = c.channel_id
left join zapwatch_states s on s.channel_id = c.channel_id
left join zapwatch_gateways g on g.id = c.gateway_id
where not c.removed and n.deleted_at is null and n.is_active is not false
order by s.last_event_at nulls first, c.channel_id;

-- name: diagnosed_gateways
-- Every gateway that has an address.
select g.id, g.provider, g.base_url, g.api_key, g.version, g.clock::text as clock,
  exists (select from zapwatch_tokens t where t.gateway_id = g.id and t.kind = 'gateway' and t.revoked_at is null)
    as has_webhook,
  (select i.cause from zapwatch_gateway_incidents i where i.gateway_id = g.id and i.resolved_at is null) as cause
from zapwatch_gateways g
where g.base_url <> ''
order by g.base_url;

-- name: unwatched_channels
-- How many channels of an application we lack, of each provider, and the first of them.
select n.provider::text as provider, n.provider::text = any ($1::text[]) as known, count(*) as channels,
  (array_agg(n.id::text order by n.id))[1:5] as first
from notification_channels n
where n.deleted_at is null and not exists (select from zapwatch_channels c where c.channel_id = n.id)
group by n.provider::text
order by n.provider::text;

-- name: webhook_owners
-- The owners of webhook tokens, by their hashes.
select hash, channel_id, gateway_id from zapwatch_tokens
where hash = any ($1::bytea[]) and kind in ('channel', 'gateway') and revoked_at is null;

-- name: late_alerts
-- How many alerts should have been decided before $1, and the longest due of them.
select count(*) as alerts, min(due_at) as due_at from zapwatch_alerts where settled_at is null and due_at < $1;

-- name: late_messages
-- How many messages were due before $1 and not tried, and the longest due of them.
select count(*) as messages, min(m.due_at) as due_at
from zapwatch_messages m join zapwatch_destinations d on d.id = m.destination_id
where m.settled_at is null and m.due_at < $1 and m.tries = 0 and d.disabled_at is null;

-- name: tenants_without_destination
-- Tenants with watched channels and no destination but `in_app`, and how many active administrators and members each has.
select t.id, t.name, a.id as in_app, a.config, a.disabled_at is not null as is_off, m.admins, m.members
from tenants t
left join zapwatch_destinations a on a.tenant_id = t.id and a.kind = 'in_app'
cross join lateral (
  select count(*) filter (where role::text in ('clinic_admin', 'tenant_admin')) as admins, count(*) as members
  from tenant_members where tenant_id = t.id and status::text = 'active'
) m
where exists (
    select from zapwatch_channels c join notification_channels n on n.id = c.channel_id
    where c.tenant_id = t.id and not c.removed and c.paused_at is null and n.deleted_at is null
  )
  and not exists (
    select from zapwatch_destinations d where d.tenant_id = t.id and d.kind <> 'in_app' and d.disabled_at is null
  )
order by t.name, t.id;

-- name: operators_have_destination
-- Whether operators have a destination that is enabled.
select exists (select from zapwatch_destinations where tenant_id is null and disabled_at is null);

-- name: poor_destinations
-- Destinations that are disabled or fail.
select d.id, d.kind, d.name, t.name as tenant, d.failing_since, d.disabled_at, d.disabled_why
from zapwatch_destinations d left join tenants t on t.id = d.tenant_id
where d.disabled_at is not null or d.failing_since is not null
order by d.created_at, d.id;

-- name: running_maintenance
-- Maintenance windows that run, with their subjects.
select w.ends_at, w.why, coalesce(c.name, c.instance) as channel, coalesce(g.name, g.base_url) as gateway,
  t.name as tenant, w.channel_id, w.gateway_id, w.tenant_id
from zapwatch_maintenance w
left join zapwatch_channels c on c.channel_id = w.channel_id
left join zapwatch_gateways g on g.id = w.gateway_id
left join tenants t on t.id = w.tenant_id
where w.starts_at <= now() and w.ends_at > now()
order by w.ends_at desc, w.id;

-- name: overdue
-- Probes and deadlines due before $1, and whether any are claimed. Those of a gateway that is down don't count.
select count(*) filter (where probe_due_at < $1) as probes, min(probe_due_at) as probe_due_at,
  coalesce(bool_or(probe_claimed_until > now()), false) as probing,
  count(*) filter (where due_at < $1) as deadlines, min(due_at) as due_at,
  coalesce(bool_or(claimed_until > now()), false) as deciding
from (
  select s.due_at, s.claimed_until, s.probe_claimed_until, case when g.try_at is null then s.probe_due_at end as probe_due_at
  from zapwatch_states s
  left join zapwatch_gateways g on g.id = s.gateway_id
  where s.probe_due_at is not null or s.due_at is not null
) s;

-- name: diagnosed_deep_probes
-- Candidates for deep probes, and channels that were found open but dead; the oldest candidates first.
select c.instance, g.base_url, s.reason is not distinct from 'open_but_dead' as found
from zapwatch_suspicions z
join zapwatch_states s using (channel_id)
join zapwatch_channels c using (channel_id)
join zapwatch_gateways g on g.id = c.gateway_id
where z.suspected_at is not null and not c.removed and (s.state = 'open' or s.reason = 'open_but_dead')
order by z.suspected_at;

-- name: unknown_instances
-- Unregistered instances with events since $1, the newest first.
select u.instance, g.base_url from zapwatch_unknown_instances u join zapwatch_gateways g on g.id = u.gateway_id
where u.last_at > $1 and not exists (
  select from zapwatch_channels c where c.gateway_id = u.gateway_id and c.instance = u.instance and not c.removed)
order by u.last_at desc;

-- name: quarantined
-- How many unreadable bodies are kept, and what was wrong with the newest.
select count(*) as bodies, (select q.problem from zapwatch_quarantine q order by q.id desc limit 1) as problem
from zapwatch_quarantine;

-- name: events_size
-- What the events take with their indexes, about how many they are, and about how many came since $1: estimated by
-- their ids, which are given in order, because counting takes minutes where they come by the thousand a second.
select pg_total_relation_size('zapwatch_events') as bytes,
  case when c.reltuples >= 10000 then c.reltuples::bigint else (select count(*) from zapwatch_events) end as events,
  coalesce(
    (select max(id) from zapwatch_events)
    - (select id from zapwatch_events where received_at > $1 order by received_at limit 1) + 1, 0) as lately,
  (select min(received_at) from zapwatch_events) as oldest_at
from pg_class c where c.oid = 'zapwatch_events'::regclass;

-- name: late_retention
-- How many channels' retention was due before $1.
select count(*) as channels, min(retention_due_at) as due_at from zapwatch_channels where retention_due_at < $1;

-- name: our_functions
-- The source of each function that has a name like ours.
select p.proname as name, p.oid::regprocedure::text as signature, p.prosrc as source from pg_proc p
where p.pronamespace = 'public'::regnamespace
  and (p.proname like 'zapwatch\_%' or p.proname like 'whatsapp\_heartbeat\_%');

-- name: schema_faults
-- What isn't as the migrations left it: its kind, what it is, and the statement that puts it right.
with roles as (
  select rolname::text as name from pg_roles where rolname in ('anon', 'authenticated', 'service_role')
  union all select 'public'
), functions as (
  select p.oid, p.oid::regprocedure::text as signature,
    case
      when p.proname like 'whatsapp\_heartbeat\_%' then array['service_role']
      when p.proname = 'zapwatch_member_tenants' then array['authenticated', 'service_role']
      else array[]::text[]
    end as allowed
  from pg_proc p
  where p.pronamespace = 'public'::regnamespace and (p.proname like 'zapwatch\_%' or p.proname in (
    'whatsapp_heartbeat_open_incident', 'whatsapp_heartbeat_resolve_open_incidents',
    'whatsapp_heartbeat_mark_notified'))
), tables as (
  select c.oid, c.relname::text as name, c.relowner, c.relrowsecurity, c.relforcerowsecurity from pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname like 'zapwatch\_%'
), shared as (
  -- Grants on what another application made are its own affair; what we made has this policy.
  select c.oid, c.relname::text as name, c.relrowsecurity,
    c.relname = 'whatsapp_connection_incidents' as incidents,
    c.relname = 'whatsapp_connection_incidents' or exists (
      select from pg_policy where polrelid = c.oid and polname = c.relname || '_service_role_all') as granted
  from pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and c.relname in (
    'tenants', 'tenant_members', 'notification_channels', 'notifications', 'whatsapp_connection_incidents')
)
select 'missing_role' as kind, w.name as what, format('create role %I nologin;', w.name) as action
from (values ('authenticated'), ('service_role')) as w (name)
where not exists (select from pg_roles where rolname = w.name)

union all
select 'missing_grant', format('%s may not execute %s', r.name, f.signature),
  format('grant execute on function %s to %s;', f.signature, r.name)
from functions f join roles r on r.name = any (f.allowed)
where not has_function_privilege(r.name, f.oid, 'execute')

union all
select 'missing_grant', format('%s may not %s %s', r.name, p.privilege, s.name),
  format('grant %s on %s to %s;', p.privilege, s.name, r.name)
from shared s
cross join (values ('authenticated', 'select'), ('service_role', 'select'), ('service_role', 'insert'),
  ('service_role', 'update'), ('service_role', 'delete')) as p (role, privilege)
join roles r on r.name = p.role
where s.granted and (s.relrowsecurity or p.role <> 'authenticated')
  and not has_table_privilege(r.name, s.oid, p.privilege)

union all
select 'shut_out_members', s.name,
  format('alter table %1$s enable row level security; grant select on %1$s to authenticated;', s.name)
from shared s join roles r on r.name = 'authenticated'
where s.incidents and not s.relrowsecurity and not has_table_privilege(r.name, s.oid, 'select')

union all
select 'surplus_grant', format('%s may execute %s', r.name, f.signature),
  format('revoke all on function %s from %s;', f.signature, r.name)
from functions f join roles r on r.name <> all (f.allowed)
where has_function_privilege(r.name, f.oid, 'execute')
  and (r.name = 'public' or not has_function_privilege('public', f.oid, 'execute'))

union all
select 'surplus_grant', format('%s may use %s', r.name, t.name), format('revoke all on %s from %s;', t.name, r.name)
from tables t cross join roles r
where has_table_privilege(r.name, t.oid, 'select, insert, update, delete, truncate')
  and (r.name = 'public' or not has_table_privilege('public', t.oid, 'select, insert, update, delete, truncate'))

union all
select 'surplus_grant', format('%s may read every tenant''s %s, for its row security is off', r.name, s.name),
  format('alter table %s enable row level security;', s.name)
from shared s join roles r on r.name <> 'service_role'
where s.incidents and not s.relrowsecurity and has_table_privilege(r.name, s.oid, 'select')

union all
select 'row_security', format('row security is not on and forced in %s', t.name),
  format('alter table %s enable row level security, force row level security;', t.name)
from tables t where not (t.relrowsecurity and t.relforcerowsecurity)

union all
select 'owner', format('%s belongs to %s, not to %s', t.name, t.relowner::regrole, current_user),
  format('alter table %s owner to %I;', t.name, current_user)
from tables t where not pg_has_role(current_user, t.relowner, 'usage')

union all
select 'owner', format('row security hides rows of %s from %s', s.name, current_user),
  format('alter table %s owner to %I;', s.name, current_user)
from shared s where row_security_active(s.oid)

union all
select 'missing_object', format('the policy %s on %s', w.policy, w.name), w.action
from (
  select t.name, 'zapwatch owner' as policy, 'run its statement of db/migrations/0002_zapwatch.sql;' as action, t.oid from tables t
  union all
  select s.name, p.policy, 'run its statement of db/migrations/0003_incidents.sql;', s.oid from shared s cross join (values
    ('wa_incidents_select_members'), ('wa_incidents_select_saas_admin'), ('wa_incidents_service_role_all')
  ) as p (policy) where s.incidents
) w
where not exists (select from pg_policy where polrelid = w.oid and polname = w.policy)

union all
select 'missing_object', 'the trigger trg_zapwatch_channel_changed on notification_channels',
  'run its statement of db/migrations/0002_zapwatch.sql;'
where not exists (
  select from pg_trigger where tgrelid = to_regclass('public.notification_channels')
    and tgname = 'trg_zapwatch_channel_changed' and tgenabled in ('O', 'A'))

union all
select 'missing_object', 'the unique index uq_wa_incidents_open_per_channel on whatsapp_connection_incidents',
  'create unique index uq_wa_incidents_open_per_channel on whatsapp_connection_incidents (channel_id) '
  || 'where resolved_at is null;'
where not exists (
  select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
  where i.indrelid = to_regclass('public.whatsapp_connection_incidents') and i.indisunique and i.indisvalid
    and i.indnatts = 1 and a.attname = 'channel_id'
    and pg_get_expr(i.indpred, i.indrelid) = '(resolved_at IS NULL)')
order by 1, 2;
