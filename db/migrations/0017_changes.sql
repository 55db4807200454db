-- What destinations may be told of channels besides incidents: that their state changed, and that they are paid for only
-- for some days more.

create table if not exists zapwatch_changes (
  id bigint generated always as identity primary key,
  channel_id uuid not null references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  event text not null check (event in ('channel.state_changed', 'channel.expiring')),
  previous_state text,
  state text,
  reason text,
  since timestamptz,
  version bigint,
  expires_at timestamptz,
  due_at timestamptz not null default now(),
  created_at timestamptz not null default now()
);
comment on table zapwatch_changes is
  'Changes of channels that are still to be routed; only ever added to, so that who writes a state waits for nobody';
comment on column zapwatch_changes.version is 'the state''s own: it grows with each change of the channel';
create index if not exists idx_zapwatch_changes_due on zapwatch_changes (due_at);
create index if not exists idx_zapwatch_changes_channel on zapwatch_changes (channel_id, event, id);
select zapwatch_close_to_others('zapwatch_changes');
alter table zapwatch_changes enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_changes'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_changes using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_changes'::regclass)
      and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())));
  end if;
end $do$;

create index if not exists idx_zapwatch_destinations_changes on zapwatch_destinations (tenant_id)
  where disabled_at is null and 'channel.state_changed' = any (events);

alter table zapwatch_decisions
  add column if not exists channel_id uuid references notification_channels (id) on delete cascade,
  add column if not exists details jsonb;
comment on column zapwatch_decisions.channel_id is 'whose change it is; null: it is about an incident, or a destination';
comment on column zapwatch_decisions.details is 'what is told of the change, as it was when it was decided';
create index if not exists idx_zapwatch_decisions_change on zapwatch_decisions (channel_id, destination_id, event, id)
  where channel_id is not null and is_sent;

alter table zapwatch_channels
  add column if not exists warned_of timestamptz,
  add column if not exists warned_days int;
comment on column zapwatch_channels.warned_of is 'the expires_at of which people were warned last';
comment on column zapwatch_channels.warned_days is 'within how many days of it that was';
