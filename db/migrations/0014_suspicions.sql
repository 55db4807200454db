-- Suspicions: channels that their gateway calls open, though something says that the connection is dead.

alter table zapwatch_gateways add column if not exists records_due_at timestamptz not null default now();
comment on column zapwatch_gateways.records_due_at is
  'when to look again whether what this gateway has on record disagrees with what it says';

create table if not exists zapwatch_suspicions (
  channel_id uuid primary key references notification_channels (id) on delete cascade,
  tenant_id uuid not null,
  sign text,
  suspected_at timestamptz,
  due_at timestamptz,
  asked_at timestamptz,
  outcome text check (outcome in ('alive', 'dead', 'doubtful', 'unanswered')),
  doubted_at timestamptz
);
comment on table zapwatch_suspicions is
  'Channels that were ever suspected of being open but dead. Rows stay, for they hold the budget of deep probes';
comment on column zapwatch_suspicions.sign is 'what the gateway has on record against it';
comment on column zapwatch_suspicions.suspected_at is 'since when; null: the sign was found harmless, or is gone';
comment on column zapwatch_suspicions.due_at is 'when the next deep probe may be made; null: none is needed';
comment on column zapwatch_suspicions.asked_at is 'when the last one was claimed, by whichever replica';
comment on column zapwatch_suspicions.outcome is 'what the last one showed';
comment on column zapwatch_suspicions.doubted_at is 'when the first of those in a row began that brought nothing back';
create index if not exists idx_zapwatch_suspicions_due on zapwatch_suspicions (due_at) where due_at is not null;

select zapwatch_close_to_others('zapwatch_suspicions');
alter table zapwatch_suspicions enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_suspicions'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_suspicions using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_suspicions'::regclass)
      and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())));
  end if;
end $do$;
