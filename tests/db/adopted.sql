-- Another application's database, as Zapwatch may find it: its own rules, triggers, policies, rows, and what looks
-- like Zapwatch's functions but is its own.
create schema auth;
create function auth.uid() returns uuid language sql stable as
  $$ select nullif(current_setting('clinic.who', true), '')::uuid $$;
create function is_saas_admin(p_user uuid default auth.uid()) returns boolean language sql stable as
  $$ select p_user = '00000000-0000-4000-8000-0000000000ff' $$;
create function set_updated_at() returns trigger language plpgsql as
  $$ begin new.updated_at := clock_timestamp(); return new; end $$;

create table audit (id bigint generated always as identity, at timestamptz default now(), what text);
create function write_audit() returns trigger language plpgsql security definer as
  $$ begin insert into audit (what) values (tg_table_name || ' ' || tg_op); return null; end $$;

create table tenants (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  slug text unique,
  updated_at timestamptz
);
create table tenant_members (
  id bigint generated always as identity primary key,
  tenant_id uuid not null references tenants on delete cascade,
  user_id uuid not null,
  role text not null default 'staff',
  status text not null default 'invited' check (status in ('invited', 'active', 'gone'))
);
create table notification_channels (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  provider varchar(40) not null check (provider in ('evolution_api', 'twilio')),
  label text,
  connection_status text default 'CONNECTED' check (connection_status in ('CONNECTED', 'CLOSED')),
  metadata jsonb,
  is_active boolean,
  phone_number text,
  credentials jsonb not null,
  updated_at timestamptz,
  constraint twilio_has_a_number check (provider <> 'twilio' or phone_number is not null)
);
comment on constraint notification_channels_provider_check on notification_channels is 'ask Ana before changing';
create table notifications (
  id uuid primary key default gen_random_uuid(),
  owner_id uuid not null,
  tenant_id uuid not null references tenants on delete cascade,
  type text not null check (type in ('new_scheduling', 'new_patient')),
  ref_id uuid,
  payload jsonb,
  read_at timestamptz,
  created_at timestamptz not null default now()
);
create table whatsapp_connection_incidents (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid not null references tenants on delete cascade,
  channel_id uuid not null references notification_channels on delete cascade,
  provider text not null check (provider in ('evolution_api')),
  kind text not null check (kind = any (array['disconnected', 'error'])),
  last_state text,
  details jsonb not null default '{}',
  started_at timestamptz not null default now(),
  resolved_at timestamptz,
  notified_at timestamptz
);
comment on table whatsapp_connection_incidents is 'outages';
create index incidents_by_start on whatsapp_connection_incidents (started_at);

create trigger stamp before update on tenants for each row execute function set_updated_at();
create trigger stamp before update on notification_channels for each row execute function set_updated_at();
create trigger audit after insert or update or delete on notification_channels for each row execute function write_audit();
create trigger audit after insert or update or delete on whatsapp_connection_incidents
  for each row execute function write_audit();

alter table notifications enable row level security;
create policy own on notifications for select using (owner_id = auth.uid());
alter table notification_channels enable row level security;
create policy staff on notification_channels
  using (tenant_id in (select m.tenant_id from tenant_members m where m.user_id = auth.uid()));

insert into tenants (id, name, slug) values ('00000000-0000-4000-8000-000000000001', 'Clínica', 'clinica');
insert into tenant_members (tenant_id, user_id, status) values
  ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000a1', 'active'),
  ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000a2', 'gone');
insert into notification_channels (id, tenant_id, provider, label, metadata, is_active, phone_number, credentials) values
  ('00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-000000000001', 'evolution_api', 'Recepção',
    '{"heartbeat_threshold_minutes": "ten"}', true, null, '{"apiUrl": "http://gateway.test", "instance": "loja"}'),
  ('00000000-0000-4000-8000-0000000000c2', '00000000-0000-4000-8000-000000000001', 'twilio', null, null, null, '+5511', '{}');
insert into notifications (owner_id, tenant_id, type) values
  ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-000000000001', 'new_patient');
insert into whatsapp_connection_incidents (tenant_id, channel_id, provider, kind, started_at, resolved_at) values
  ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000c1', 'evolution_api', 'error',
    now() - interval '2 days', now() - interval '1 day'),
  ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000c1', 'evolution_api', 'disconnected',
    now() - interval '1 hour', null);
