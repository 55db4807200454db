-- Incidents of whole gateways: what is known of each gateway, who is affected, and whom nobody need ask meanwhile.

alter table zapwatch_gateways
  add column if not exists state text not null default 'unknown' check (state in ('unknown', 'up', 'down')),
  add column if not exists since timestamptz,
  add column if not exists failing_since timestamptz,
  add column if not exists failed_at timestamptz,
  add column if not exists failed uuid[] not null default '{}',
  add column if not exists failures int not null default 0,
  add column if not exists unavailable int not null default 0,
  add column if not exists suspected_at timestamptz,
  add column if not exists doubted_at timestamptz,
  add column if not exists doubted_until timestamptz,
  add column if not exists held_until timestamptz,
  add column if not exists try_at timestamptz,
  add column if not exists tries int not null default 0,
  add column if not exists lost int not null default 0,
  add column if not exists moved_at timestamptz;
comment on column zapwatch_gateways.state is 'down exactly while it has an open incident; its one writer is db/gateways.py';
comment on column zapwatch_gateways.failing_since is 'when the first of the probes began that went unanswered since its last answer';
comment on column zapwatch_gateways.failed_at is 'when the newest of them began; failed: whom they asked about, no more than five';
comment on column zapwatch_gateways.unavailable is 'how many of those failures were a 503';
comment on column zapwatch_gateways.suspected_at is 'when those failures were first told; others may object for a moment';
comment on column zapwatch_gateways.doubted_until is 'until then silence since doubted_at is blamed on nobody: we may be offline';
comment on column zapwatch_gateways.held_until is 'until then its channels open no incidents of their own';
comment on column zapwatch_gateways.try_at is 'when it is tried again; null: everybody may ask it';
comment on column zapwatch_gateways.lost is 'of its incident for a mass loss: how many were not back at moved_at, when that last changed';

alter table zapwatch_states add column if not exists left_at timestamptz;
comment on column zapwatch_states.left_at is 'when the channel last left open; null: not within ten minutes before it was saved';
create index if not exists idx_zapwatch_states_left on zapwatch_states (gateway_id, left_at) where left_at is not null;

create table if not exists zapwatch_gateway_incidents (
  id uuid primary key default gen_random_uuid(),
  gateway_id uuid not null references zapwatch_gateways (id) on delete cascade,
  cause text not null check (cause in ('unreachable', 'unavailable', 'mass_loss')),
  details jsonb not null default '{}',
  affected int not null default 0,
  started_at timestamptz not null,
  opened_at timestamptz not null,
  resolved_at timestamptz,
  duration_seconds int
);
comment on table zapwatch_gateway_incidents is 'When a gateway was in trouble as a whole; open while resolved_at is null';
comment on column zapwatch_gateway_incidents.affected is 'how many channels are attached to it';
create unique index if not exists uq_zapwatch_gateway_incidents_open on zapwatch_gateway_incidents (gateway_id)
  where resolved_at is null;
create index if not exists idx_zapwatch_gateway_incidents_started on zapwatch_gateway_incidents (gateway_id, started_at desc);

create table if not exists zapwatch_affected_channels (
  gateway_incident_id uuid not null references zapwatch_gateway_incidents (id) on delete cascade,
  channel_id uuid not null references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  incident_id uuid,
  primary key (gateway_incident_id, channel_id)
);
comment on table zapwatch_affected_channels is 'The channels that a gateway''s incident stands for';
comment on column zapwatch_affected_channels.incident_id is 'the channel''s own incident, open already when it was attached';
create index if not exists idx_zapwatch_affected_channels_channel on zapwatch_affected_channels (channel_id);

-- An alert is about a channel's incident or about a gateway's. The latter are for operators of all tenants.
alter table zapwatch_alerts
  alter column incident_id drop not null,
  alter column channel_id drop not null,
  alter column tenant_id drop not null,
  add column if not exists gateway_incident_id uuid references zapwatch_gateway_incidents (id) on delete cascade;
comment on column zapwatch_alerts.gateway_incident_id is 'of a gateway''s incident; exactly one of this and incident_id';
create unique index if not exists uq_zapwatch_alerts_gateway_incident on zapwatch_alerts (gateway_incident_id, kind)
  where gateway_incident_id is not null;

do $do$
declare
  v_table text;
begin
  if not exists (
    select from pg_constraint where conrelid = 'zapwatch_alerts'::regclass and conname = 'zapwatch_alerts_about_one'
  ) then
    alter table zapwatch_alerts add constraint zapwatch_alerts_about_one check (
      num_nonnulls(incident_id, gateway_incident_id) = 1
      and (incident_id is null or (channel_id is not null and tenant_id is not null))
    ) not valid;
  end if;

  foreach v_table in array array['zapwatch_gateway_incidents', 'zapwatch_affected_channels'] loop
    perform zapwatch_close_to_others(v_table);
    execute format('alter table %I enable row level security, force row level security', v_table);
    continue when exists (
      select from pg_policy where polrelid = v_table::regclass and polname = 'zapwatch owner'
    );
    execute format(
      'create policy "zapwatch owner" on %1$I using (
         (select pg_has_role(current_user, relowner, ''usage'') from pg_class where oid = %1$L::regclass)
         and %2$s)',
      v_table, case when v_table = 'zapwatch_affected_channels'
        then '((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant()))'
        else '(select zapwatch_tenant()) is null'
      end);
  end loop;
end $do$;
