-- Probing: which gateway a channel's probe goes to, who is making it, and the checks that operators ask for.

alter table zapwatch_states
  add column if not exists gateway_id uuid,
  add column if not exists probe_claimed_until timestamptz;
comment on column zapwatch_states.gateway_id is 'as in zapwatch_channels; here so that due probes are found per gateway';
comment on column zapwatch_states.probe_claimed_until is 'until when the due probe is left to the replica that makes it';

-- By triggers, because a service of the version before, which may still run beside this one, doesn't know the column.
create or replace function zapwatch_state_made() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
  new.gateway_id := (select c.gateway_id from zapwatch_channels c where c.channel_id = new.channel_id);
  return new;
end $$;
comment on function zapwatch_state_made() is 'zapwatch: trigger function, gives a new state its channel''s gateway';
select zapwatch_close_to_others('function zapwatch_state_made()');

create or replace function zapwatch_channel_moved() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
  update zapwatch_states set gateway_id = new.gateway_id where channel_id = new.channel_id;
  return null;
end $$;
comment on function zapwatch_channel_moved() is 'zapwatch: trigger function, gives a state the gateway that its channel got';
select zapwatch_close_to_others('function zapwatch_channel_moved()');

create or replace trigger trg_zapwatch_state_made before insert on zapwatch_states
  for each row execute function zapwatch_state_made();
create or replace trigger trg_zapwatch_channel_moved after insert or update of gateway_id on zapwatch_channels
  for each row execute function zapwatch_channel_moved();

create index if not exists idx_zapwatch_states_probe on zapwatch_states (gateway_id, probe_due_at)
  where probe_due_at is not null;
drop index if exists idx_zapwatch_states_probe_due;  -- the new one serves all that it served

create table if not exists zapwatch_checks (
  id uuid primary key default gen_random_uuid(),
  tenant_id uuid,
  channel_id uuid references notification_channels (id) on delete cascade,
  total int not null,
  done int,
  after uuid,
  due_at timestamptz not null default now(),
  started_at timestamptz not null,
  finished_at timestamptz
);
comment on table zapwatch_checks is 'A probe of all channels, or of one, that somebody asked for';
comment on column zapwatch_checks.tenant_id is 'whose channels; null: everybody''s';
comment on column zapwatch_checks.channel_id is 'the one channel; null: all';
comment on column zapwatch_checks.total is 'how many channels were to be probed when it began';
comment on column zapwatch_checks.done is 'how many of them were, at its end; null: it runs';
comment on column zapwatch_checks.after is 'up to this channel, in the order of ids, they were made due; null: a pass begins';
comment on column zapwatch_checks.due_at is 'when to go on';
create unique index if not exists uq_zapwatch_checks_running on zapwatch_checks
  (coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), coalesce(channel_id, '00000000-0000-0000-0000-000000000000'))
  where finished_at is null;

select zapwatch_close_to_others('zapwatch_checks');
alter table zapwatch_checks enable row level security, force row level security;
do $do$
begin
  if not exists (
    select from pg_policy where polrelid = 'zapwatch_checks'::regclass and polname = 'zapwatch owner'
  ) then
    create policy "zapwatch owner" on zapwatch_checks using (
      (select pg_has_role(current_user, relowner, 'usage') from pg_class where oid = 'zapwatch_checks'::regclass)
      and ((select zapwatch_tenant()) is null or tenant_id = (select zapwatch_tenant())));
  end if;
end $do$;
