-- Telling people: where, when not, what was decided about each alert and destination, and what became of it.

create table if not exists zapwatch_destinations (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid references tenants (id) on delete cascade,
  kind text not null,
  name text,
  config bytea not null,
  events text[] not null default '{incident.opened,incident.resolved}',
  reminder_minutes int check (reminder_minutes > 0),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  failing_since timestamptz,
  disabled_at timestamptz,
  disabled_why text
);
comment on table zapwatch_destinations is 'Where people are told of incidents; tenant_id null: operators';
comment on column zapwatch_destinations.config is 'sealed JSON; associated data: destination:<id>';
comment on column zapwatch_destinations.reminder_minutes is 'after which an open incident is told again, each time twice as late; null: never';
comment on column zapwatch_destinations.failing_since is 'since when no message got through; null: the last one did';
comment on column zapwatch_destinations.disabled_why is 'our word for why nothing is sent: failing, gone (410), or operator';
create index if not exists idx_zapwatch_destinations_tenant on zapwatch_destinations (tenant_id);
create unique index if not exists uq_zapwatch_destinations_in_app on zapwatch_destinations (tenant_id) where kind = 'in_app';

create table if not exists zapwatch_maintenance (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid references tenants (id) on delete cascade,
  channel_id uuid references notification_channels (id) on delete cascade,
  gateway_id uuid references zapwatch_gateways (id) on delete cascade,
  starts_at timestamptz not null default now(),
  ends_at timestamptz not null,
  why text,
  created_at timestamptz not null default now(),
  check (ends_at > starts_at)
);
comment on table zapwatch_maintenance is 'When nobody is told: of one channel, of a gateway, of a tenant, or (all three null) of anything';
create index if not exists idx_zapwatch_maintenance_ends on zapwatch_maintenance (ends_at);

create table if not exists zapwatch_messages (
  id uuid primary key default gen_random_uuid(),
  destination_id uuid not null references zapwatch_destinations (id) on delete cascade,
  tenant_id uuid,
  purpose text not null default 'news' check (purpose in ('news', 'reminder', 'test')),
  due_at timestamptz not null,
  leaves_at timestamptz not null default now(),
  claimed_until timestamptz,
  tries int not null default 0,
  created_at timestamptz not null default now(),
  settled_at timestamptz,
  outcome text check (outcome in ('delivered', 'failed', 'given_up', 'void'))
);
comment on table zapwatch_messages is 'What leaves as one; its id stays the same over all tries';
comment on column zapwatch_messages.leaves_at is 'when it was to be tried first; what follows soon after waits for the next one';
comment on column zapwatch_messages.tries is 'how often it was claimed: it may have left as often';
comment on column zapwatch_messages.outcome is
  'failed: for good, it said so; given_up: tried for too long; void: nothing was left to tell; null: it is still to leave';
create index if not exists idx_zapwatch_messages_due on zapwatch_messages (destination_id, due_at, id)
  where settled_at is null;
create index if not exists idx_zapwatch_messages_leaves on zapwatch_messages (destination_id, leaves_at);
create index if not exists idx_zapwatch_messages_settled on zapwatch_messages (settled_at) where settled_at is not null;

create table if not exists zapwatch_decisions (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  alert_id bigint references zapwatch_alerts (id) on delete cascade,
  incident_id uuid references whatsapp_connection_incidents (id) on delete cascade,
  gateway_incident_id uuid references zapwatch_gateway_incidents (id) on delete cascade,
  tenant_id uuid,
  destination_id uuid references zapwatch_destinations (id) on delete cascade,
  event text not null,
  is_sent boolean not null,
  why text not null,
  message_id uuid references zapwatch_messages (id) on delete cascade,
  about_destination_id uuid references zapwatch_destinations (id) on delete cascade,
  subject_id uuid generated always as (coalesce(incident_id, gateway_incident_id)) stored,
  remind_at timestamptz,
  reminders int not null default 0
);
comment on table zapwatch_decisions is 'Whether a destination is told of an alert, and by which named reason';
comment on column zapwatch_decisions.destination_id is 'null: it was decided for all, or there was nobody to tell';
comment on column zapwatch_decisions.about_destination_id is 'of a destination that was switched off: what its owner is told of';
comment on column zapwatch_decisions.subject_id is 'the incident, a channel''s or a gateway''s';
comment on column zapwatch_decisions.remind_at is 'when the destination is to be told once more, if the incident is still open by then';
create unique index if not exists uq_zapwatch_decisions_alert
  on zapwatch_decisions (alert_id, coalesce(destination_id, '00000000-0000-0000-0000-000000000000'))
  where alert_id is not null;
create index if not exists idx_zapwatch_decisions_incident on zapwatch_decisions (incident_id) where incident_id is not null;
create index if not exists idx_zapwatch_decisions_subject on zapwatch_decisions (subject_id, destination_id)
  where subject_id is not null;
create index if not exists idx_zapwatch_decisions_remind on zapwatch_decisions (remind_at) where remind_at is not null;
create index if not exists idx_zapwatch_decisions_at on zapwatch_decisions (at);
create index if not exists idx_zapwatch_decisions_message on zapwatch_decisions (message_id) where message_id is not null;
create index if not exists idx_zapwatch_decisions_destination on zapwatch_decisions (destination_id, id desc);

create table if not exists zapwatch_attempts (
  id bigint generated always as identity primary key,
  message_id uuid not null references zapwatch_messages (id) on delete cascade,
  destination_id uuid not null references zapwatch_destinations (id) on delete cascade,
  tenant_id uuid,
  at timestamptz not null,
  took_ms int not null,
  is_ok boolean not null,
  status int,
  answer text
);
comment on table zapwatch_attempts is 'Each try to deliver a message';
create index if not exists idx_zapwatch_attempts_message on zapwatch_attempts (message_id);
create index if not exists idx_zapwatch_attempts_destination on zapwatch_attempts (destination_id, id desc);

do $do$
declare
  v_table text;
begin
  foreach v_table in array array[
    'zapwatch_destinations', 'zapwatch_maintenance', 'zapwatch_messages', 'zapwatch_decisions', 'zapwatch_attempts'
  ] loop
    perform zapwatch_close_to_others(v_table);
    execute format('alter table %I enable row level security, force row level security', v_table);
    continue when exists (
      select from pg_policy where polrelid = v_table::regclass and polname = 'zapwatch owner'
    );
    execute format(
      'create policy "zapwatch owner" on %1$I using (
         (select pg_has_role(current_user, relowner, ''usage'') from pg_class where oid = %1$L::regclass)
         and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())))',
      v_table);
  end loop;
end $do$;
