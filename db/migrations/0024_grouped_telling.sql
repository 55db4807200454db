-- Telling is grouped by cause: a change of an open incident is an alert of its own, and a decision about a gateway's
-- incident may stand for all of a tenant's incidents that it caused.

alter table zapwatch_alerts
  add column if not exists was_caused_by text;
comment on column zapwatch_alerts.was_caused_by is
  'of a change by which an incident lost its cause: the gateway''s incident that it named before';

do $do$
begin
  if not exists (
    select from pg_constraint where conrelid = 'zapwatch_alerts'::regclass and conname = 'zapwatch_alerts_known_kind'
  ) then
    alter table zapwatch_alerts add constraint zapwatch_alerts_known_kind
      check (kind in ('opened', 'changed', 'resolved')) not valid;
    alter table zapwatch_alerts drop constraint if exists zapwatch_alerts_kind_check;
  end if;
end $do$;

-- An incident opens and ends once, and may change often. A change is only ever added, so that the session that writes an
-- incident waits for no other.
create unique index if not exists uq_zapwatch_alerts_incident on zapwatch_alerts (incident_id, kind)
  where incident_id is not null and kind <> 'changed';
create index if not exists idx_zapwatch_alerts_incident on zapwatch_alerts (incident_id);
alter table zapwatch_alerts drop constraint if exists zapwatch_alerts_incident_id_kind_key;

create or replace function zapwatch_incident_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
  insert into zapwatch_alerts (incident_id, channel_id, tenant_id, kind, was_caused_by)
  values (new.id, new.channel_id, new.tenant_id, 'changed', nullif(
    old.details ->> 'gateway_incident_id', coalesce(new.details ->> 'gateway_incident_id', '')));
  return null;
end $$;
comment on function zapwatch_incident_changed() is
  'zapwatch: adds an alert when the kind, the reason or the cause of an open incident changes';
select zapwatch_close_to_others('function zapwatch_incident_changed()');

do $do$
begin
  if not exists (
    select from pg_trigger
    where tgrelid = 'whatsapp_connection_incidents'::regclass and tgname = 'trg_zapwatch_incident_changed'
  ) then
    create trigger trg_zapwatch_incident_changed after update on whatsapp_connection_incidents for each row
      when (old.resolved_at is null and new.resolved_at is null and (
        old.kind is distinct from new.kind
        or old.details ->> 'reason' is distinct from new.details ->> 'reason'
        or old.details ->> 'cause' is distinct from new.details ->> 'cause'
        or old.details ->> 'gateway_incident_id' is distinct from new.details ->> 'gateway_incident_id'))
      execute function zapwatch_incident_changed();
  end if;
end $do$;

create index if not exists idx_wa_incidents_caused on whatsapp_connection_incidents ((details ->> 'gateway_incident_id'))
  where details ->> 'gateway_incident_id' is not null;

alter table zapwatch_decisions
  add column if not exists end_awaited boolean not null default false;
comment on column zapwatch_decisions.end_awaited is
  'of a message that stands for all of a tenant''s incidents with one cause: its end is still to be told';
create index if not exists idx_zapwatch_decisions_end_awaited on zapwatch_decisions (gateway_incident_id)
  where end_awaited;
create index if not exists idx_zapwatch_decisions_gateway_incident
  on zapwatch_decisions (gateway_incident_id, destination_id) where gateway_incident_id is not null;
