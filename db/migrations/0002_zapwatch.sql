-- Zapwatch's own tables. Row security is forced on each: only the owner sees rows, and with the setting
-- zapwatch.tenant_id only that tenant's, even when a query forgets its WHERE.

create or replace function zapwatch_tenant() returns uuid
language sql stable as $$  -- no SET here: it would keep the planner from inlining it
  select nullif(pg_catalog.current_setting('zapwatch.tenant_id', true), '')::pg_catalog.uuid
$$;
comment on function zapwatch_tenant() is 'zapwatch: the tenant that this transaction is limited to; null: none';
select zapwatch_close_to_others('function zapwatch_tenant()');

create table if not exists zapwatch_gateways (
  id uuid primary key default gen_random_uuid(),
  provider text not null check (provider in ('evolution_api', 'wapi', 'twilio', 'waha')),
  base_url text not null,
  name text,
  api_key bytea,
  version text,
  version_due_at timestamptz default now(),
  clock jsonb not null default '{}',
  created_at timestamptz not null default now(),
  unique (provider, base_url)
);
comment on column zapwatch_gateways.base_url is 'normalised by Python';
comment on column zapwatch_gateways.api_key is 'sealed; associated data: gateway:<id>';
comment on column zapwatch_gateways.version_due_at is 'when to read the version; null: nothing to read';
comment on column zapwatch_gateways.clock is 'what is being learnt of its clock';

create table if not exists zapwatch_channels (
  channel_id uuid primary key references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  gateway_id uuid references zapwatch_gateways (id),
  provider text not null,
  instance text,
  name text,
  api_key bytea,
  paused_at timestamptz,
  removed boolean not null default false,
  created_at timestamptz not null default now()
);
comment on table zapwatch_channels is 'A channel''s registration; seldom written';
comment on column zapwatch_channels.instance is 'null only on an adopted row whose credentials can''t be read';
comment on column zapwatch_channels.api_key is 'sealed; associated data: channel:<id>';
create unique index if not exists uq_zapwatch_channels_instance on zapwatch_channels (gateway_id, instance)
  where not removed;
create index if not exists idx_zapwatch_channels_tenant on zapwatch_channels (tenant_id);

create table if not exists zapwatch_states (
  channel_id uuid primary key references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  version bigint not null default 0,
  state text not null default 'unknown',
  reason text,
  status int,
  since timestamptz,
  first_unhealthy_at timestamptz,
  last_event_at timestamptz,
  fresh_at timestamptz,
  probed_at timestamptz,
  due_at timestamptz,
  probe_due_at timestamptz,
  memory jsonb not null default '{}',
  claimed_until timestamptz
) with (fillfactor = 70);
comment on table zapwatch_states is 'A channel''s state; hot and narrow; its one writer is db/apply.py';
comment on column zapwatch_states.version is 'counts changes of state or reason';
comment on column zapwatch_states.due_at is 'when the machine decides again though nothing arrives';
comment on column zapwatch_states.probe_due_at is 'when to ask the gateway';
comment on column zapwatch_states.memory is 'evidence, rules last seen, departures, suspicion: db/codec.py';
create index if not exists idx_zapwatch_states_due on zapwatch_states (due_at) where due_at is not null;
create index if not exists idx_zapwatch_states_probe_due on zapwatch_states (probe_due_at) where probe_due_at is not null;
create index if not exists idx_zapwatch_states_tenant on zapwatch_states (tenant_id);

create table if not exists zapwatch_tokens (
  hash bytea primary key check (length(hash) = 32),
  kind text not null check (kind in ('operator', 'channel', 'gateway')),
  tenant_id uuid,
  channel_id uuid references notification_channels (id) on delete cascade,
  gateway_id uuid references zapwatch_gateways (id) on delete cascade,
  name text,
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);
comment on column zapwatch_tokens.hash is 'sha256 of the token; the token itself is nowhere';
create index if not exists idx_zapwatch_tokens_channel on zapwatch_tokens (channel_id);
create index if not exists idx_zapwatch_tokens_gateway on zapwatch_tokens (gateway_id);

create table if not exists zapwatch_events (
  id bigint generated always as identity primary key,
  channel_id uuid not null references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  source text not null check (source in ('webhook', 'probe', 'deadline', 'operator')),
  name text not null,
  trigger text,
  reason text,
  status int,
  at timestamptz,
  last_at timestamptz,
  received_at timestamptz not null,
  last_received_at timestamptz not null,
  count int not null default 1,
  deliveries int not null default 1,
  key bytea,
  state text not null,
  data jsonb
);
comment on table zapwatch_events is 'What was heard of a channel, in the order in which it was applied';
comment on column zapwatch_events.name is 'the gateway''s name of the event, or ours';
comment on column zapwatch_events.trigger is 'null: it says nothing about the session';
comment on column zapwatch_events.at is 'the provider''s own time of the first event in the row; last_at: of the newest';
comment on column zapwatch_events.key is 'by which a redelivery is recognised';
create unique index if not exists uq_zapwatch_events_key on zapwatch_events (channel_id, key) where key is not null;
create index if not exists idx_zapwatch_events_channel on zapwatch_events (channel_id, id desc);
create index if not exists idx_zapwatch_events_received on zapwatch_events (received_at);

create table if not exists zapwatch_alerts (
  id bigint generated always as identity primary key,
  incident_id uuid not null references whatsapp_connection_incidents (id) on delete cascade,
  channel_id uuid not null,
  tenant_id uuid not null,
  kind text not null check (kind in ('opened', 'resolved')),
  due_at timestamptz not null default now(),
  claimed_until timestamptz,
  settled_at timestamptz,
  created_at timestamptz not null default now(),
  unique (incident_id, kind)
);
comment on table zapwatch_alerts is 'Somebody is to be told; written with the incident that causes it';
create index if not exists idx_zapwatch_alerts_due on zapwatch_alerts (due_at) where settled_at is null;

create table if not exists zapwatch_unknown_instances (
  gateway_id uuid not null references zapwatch_gateways (id) on delete cascade,
  instance text not null,
  count bigint not null default 1,
  first_at timestamptz not null default now(),
  last_at timestamptz not null default now(),
  last_state text,
  primary key (gateway_id, instance)
);

create table if not exists zapwatch_quarantine (
  id bigint generated always as identity primary key,
  token_hash bytea not null,
  tenant_id uuid,
  provider text not null,
  suffix text,
  body bytea not null,
  size int not null,
  problem text not null,
  received_at timestamptz not null default now()
);
comment on table zapwatch_quarantine is 'Bodies that could not be read';
comment on column zapwatch_quarantine.body is 'its first 16 kB, sealed; associated data: quarantine:<token_hash in hex>';
create index if not exists idx_zapwatch_quarantine_token on zapwatch_quarantine (token_hash, id);
create index if not exists idx_zapwatch_quarantine_received on zapwatch_quarantine (received_at);

do $do$
declare
  v_table record;
begin
  for v_table in
    select c.oid::regclass as name,
      exists (
        select from pg_attribute where attrelid = c.oid and attname = 'tenant_id' and not attisdropped
      ) as has_tenant,
      exists (select from pg_policy where polrelid = c.oid and polname = 'zapwatch owner') as has_policy
    from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname like 'zapwatch\_%'
    order by c.relname
  loop
    perform zapwatch_close_to_others(v_table.name::text);
    execute format('alter table %s enable row level security, force row level security', v_table.name);
    continue when v_table.has_policy;
    -- The owner is looked up and not named, so that a restored or reassigned database keeps its rows visible. The
    -- parts in (select ...) are evaluated once a statement.
    execute format(
      'create policy "zapwatch owner" on %1$s using (
         (select pg_has_role(current_user, relowner, ''usage'') from pg_class where oid = %2$L::regclass)
         and %3$s)',
      v_table.name, v_table.name,
      case when v_table.has_tenant
        then '((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant()))'
        else '(select zapwatch_tenant()) is null'
      end);
  end loop;
end $do$;

-- Whoever writes a channel's settings: the machine looks at it again, since a deadline may have moved.
create or replace function zapwatch_channel_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
  update zapwatch_states s set due_at = least(s.due_at, now()) where s.channel_id = new.id;
  return null;
end $$;
comment on function zapwatch_channel_changed() is 'zapwatch: trigger function, makes the channel due';
select zapwatch_close_to_others('function zapwatch_channel_changed()');

do $do$
begin
  if not exists (
    select from pg_trigger where tgrelid = 'notification_channels'::regclass and tgname = 'trg_zapwatch_channel_changed'
  ) then
    -- No column list: another application's BEFORE trigger may change what the statement did not name. As text,
    -- because an adopted metadata may be json, which cannot be compared.
    create trigger trg_zapwatch_channel_changed after update on notification_channels for each row
      when (
        old.metadata::text is distinct from new.metadata::text
        or old.is_active is distinct from new.is_active
        or old.deleted_at is distinct from new.deleted_at)
      execute function zapwatch_channel_changed();
  end if;
end $do$;
