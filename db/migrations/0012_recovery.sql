-- Recovery: from when on an order may be given about a channel, and what was ordered, which is also what bounds it.

alter table zapwatch_states add column if not exists recovery_due_at timestamptz;
comment on column zapwatch_states.recovery_due_at is 'from when on its gateway may be given an order; null: none would help';
create index if not exists idx_zapwatch_states_recovery on zapwatch_states (gateway_id, recovery_due_at)
  where recovery_due_at is not null;

create table if not exists zapwatch_recoveries (
  id uuid primary key default gen_random_uuid(),
  channel_id uuid not null references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  gateway_id uuid not null,
  asked_by text not null check (asked_by in ('clock', 'operator')),
  action text,
  tried_at timestamptz[] not null default '{}',
  last_tried_at timestamptz,
  began_at timestamptz not null,
  claimed_until timestamptz,
  ended_at timestamptz,
  outcome text
);
comment on table zapwatch_recoveries is 'Episodes of recovery: what gateways were ordered to do for a channel, and what came of it';
comment on column zapwatch_recoveries.action is 'the order: restart, connect; null: none was given yet';
comment on column zapwatch_recoveries.tried_at is 'when each order was given, by the database''s clock; counted to bound them';
comment on column zapwatch_recoveries.claimed_until is 'until when it is left to the replica that works on it';
comment on column zapwatch_recoveries.outcome is
  'recovered: a probe said open; failed; overtaken: it was no longer wanted; null: it runs';
create unique index if not exists uq_zapwatch_recoveries_running on zapwatch_recoveries (channel_id) where ended_at is null;
create index if not exists idx_zapwatch_recoveries_channel on zapwatch_recoveries (channel_id, began_at desc);
create index if not exists idx_zapwatch_recoveries_gateway on zapwatch_recoveries (gateway_id, last_tried_at);

select zapwatch_close_to_others('zapwatch_recoveries');
alter table zapwatch_recoveries enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_recoveries'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_recoveries using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_recoveries'::regclass)
      and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())));
  end if;
end $do$;
