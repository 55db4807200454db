-- The places on gateways where webhooks are addressed to us, as far as Zapwatch put the address there itself.

alter table zapwatch_gateways add column if not exists webhook_token bytea;
comment on column zapwatch_gateways.webhook_token is
  'sealed: the token of the address that Zapwatch itself sets on channels of this gateway; null: it sets none';

create table if not exists zapwatch_slots (
  channel_id uuid primary key references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  state text not null check (state in ('set', 'foreign', 'failed', 'lost')),
  traffic boolean not null default false,
  foreign_host text,
  before bytea,
  set_at timestamptz,
  checked_at timestamptz not null,
  mended_at timestamptz,
  due_at timestamptz
);
comment on table zapwatch_slots is 'Where a channel''s gateway sends its webhooks, of channels whose address Zapwatch sets';
comment on column zapwatch_slots.state is
  'set: to us; foreign: another system has the place; failed: not saved; lost: gone again right after it was mended';
comment on column zapwatch_slots.traffic is 'whether messages are told, too';
comment on column zapwatch_slots.foreign_host is 'the other system''s host; never its whole address';
comment on column zapwatch_slots.before is 'sealed: what was in the place that we replaced, to be put back';
comment on column zapwatch_slots.due_at is 'when to look whether it is still so; null: never';
create index if not exists idx_zapwatch_slots_due on zapwatch_slots (due_at) where due_at is not null;

select zapwatch_close_to_others('zapwatch_slots');
alter table zapwatch_slots enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_slots'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_slots using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_slots'::regclass)
      and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())));
  end if;
end $do$;
