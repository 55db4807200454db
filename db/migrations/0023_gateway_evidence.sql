-- A silent gateway is evidence about its channels, and incidents of channels carry their cause. Nothing that is known of
-- a gateway delays an incident of a channel any more: held_until, doubted_at and doubted_until are no longer read.

alter table zapwatch_channels
  add column if not exists put_by text check (put_by in ('operator', 'tenant'));
comment on column zapwatch_channels.put_by is
  'whose token registered the channel; null: registered before this was kept, which counts as operator';

alter table zapwatch_states
  add column if not exists emitted_at timestamptz;
comment on column zapwatch_states.emitted_at is
  'when the gateway emitted its newest webhook of the channel, by our clock; a late retry leaves it as it is';

alter table zapwatch_gateways
  add column if not exists tried_at timestamptz,
  add column if not exists settles_until timestamptz,
  add column if not exists falls timestamptz[] not null default '{}',
  add column if not exists refused_at timestamptz;
comment on column zapwatch_gateways.state is
  'down exactly while its open incident is one of silence or unavailability; its one writer is db/reconcile/gateway_health.py';
comment on column zapwatch_gateways.tried_at is 'when the newest probe began of which the gateway''s health knows the result, an answer or none';
comment on column zapwatch_gateways.settles_until is 'until then, after an incident, troubles of its channels are explained by it';
comment on column zapwatch_gateways.falls is 'when its last incidents began, within the time in which they count as flapping';
comment on column zapwatch_gateways.refused_at is 'when it was last seen to refuse the key of every channel that was asked about; null: it takes them';
comment on column zapwatch_gateways.held_until is 'not used any more';
comment on column zapwatch_gateways.doubted_until is 'not used any more';

do $do$
begin
  if not exists (
    select from pg_constraint
    where conrelid = 'zapwatch_gateway_incidents'::regclass and conname = 'zapwatch_gateway_incidents_known_cause'
  ) then
    alter table zapwatch_gateway_incidents add constraint zapwatch_gateway_incidents_known_cause
      check (cause in ('unreachable', 'unavailable', 'mass_loss', 'unauthorized'));
    alter table zapwatch_gateway_incidents drop constraint if exists zapwatch_gateway_incidents_cause_check;
  end if;
end $do$;
alter table zapwatch_gateway_incidents
  add column if not exists notified_at timestamptz,
  add column if not exists notification_count int not null default 0;

alter table zapwatch_affected_channels
  add column if not exists verdict_due_at timestamptz;
comment on column zapwatch_affected_channels.verdict_due_at is
  'when the channel is to be given the gateway''s verdict, or the process that has claimed that loses it; null: not, or given';
create index if not exists idx_zapwatch_affected_channels_verdict on zapwatch_affected_channels (verdict_due_at)
  where verdict_due_at is not null;
