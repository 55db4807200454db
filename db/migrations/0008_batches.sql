-- What makes a batch cheap: whole rows as parameters, no check of a foreign key for each event, and rules that are not
-- read and written with each change.

alter table zapwatch_states add column if not exists told_rules text;
comment on column zapwatch_states.told_rules is
  'the rules that the channel''s events have told last, as JSON; apart from memory, for they hardly ever change';

do $do$
begin
  if to_regtype('zapwatch_new_event') is null then
    create type zapwatch_new_event as (
      channel_id uuid, tenant_id uuid, source text, name text, trigger text, reason text, status int, at timestamptz,
      last_at timestamptz, received_at timestamptz, last_received_at timestamptz, count int, deliveries int, key bytea,
      state text, data jsonb
    );
  end if;
  if to_regtype('zapwatch_new_state') is null then
    create type zapwatch_new_state as (
      channel_id uuid, version bigint, state text, reason text, status int, since timestamptz,
      first_unhealthy_at timestamptz, last_event_at timestamptz, fresh_at timestamptz, probed_at timestamptz,
      due_at timestamptz, probe_due_at timestamptz, told_rules text, memory jsonb, answered boolean
    );
  end if;
  if to_regtype('zapwatch_shown_state') is null then
    create type zapwatch_shown_state as (channel_id uuid, state text, reason text, at timestamptz);
  end if;
end $do$;
comment on type zapwatch_new_event is 'zapwatch: a row of zapwatch_events as db/apply passes it';
comment on type zapwatch_new_state is 'zapwatch: a row of zapwatch_states as db/apply passes it';
comment on type zapwatch_shown_state is 'zapwatch: what notification_channels shows, as db/apply passes it';

-- The events of a channel that is deleted for good go with it, as the foreign key had it. The key looked at the
-- channel's row, and locked it, once more for each event.
create or replace function zapwatch_channel_gone() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
  delete from zapwatch_events where channel_id = old.id;
  return null;
end $$;
comment on function zapwatch_channel_gone() is 'zapwatch: trigger function, deletes the events of a deleted channel';
select zapwatch_close_to_others('function zapwatch_channel_gone()');

create or replace trigger trg_zapwatch_channel_gone after delete on notification_channels
  for each row execute function zapwatch_channel_gone();
alter table zapwatch_events drop constraint if exists zapwatch_events_channel_id_fkey;
