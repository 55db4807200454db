-- Forgetting old events: a replay then goes on from a snapshot, a channel as it was after one of its events.

create table if not exists zapwatch_snapshots (
  channel_id uuid not null references notification_channels (id) on delete cascade,
  event_id bigint not null,
  tenant_id uuid not null,
  taken_at timestamptz not null,
  channel jsonb,
  primary key (channel_id, event_id)
);
comment on table zapwatch_snapshots is 'Channels as they were; events before the oldest snapshot of a channel may be deleted';
comment on column zapwatch_snapshots.event_id is 'the channel''s newest event at that moment; 0: before the first';
comment on column zapwatch_snapshots.channel is 'its row in zapwatch_states and its open incident; null: before the first event';

select zapwatch_close_to_others('zapwatch_snapshots');
alter table zapwatch_snapshots enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_snapshots'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_snapshots using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_snapshots'::regclass)
      and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())));
  end if;
end $do$;

alter table zapwatch_channels add column if not exists retention_due_at timestamptz not null default now();
comment on column zapwatch_channels.retention_due_at is 'when to take its next snapshot, and to look for events to forget';
create index if not exists idx_zapwatch_channels_retention_due on zapwatch_channels (retention_due_at);

-- Events are forgotten from the oldest on, and whoever looks for the oldest steps over those that vacuum hasn't removed.
alter table zapwatch_events set (autovacuum_vacuum_scale_factor = 0.05);
