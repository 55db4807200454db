-- What the evaluation of a gateway keeps besides its silence: refused keys, the pauses of one that flaps, and departures
-- that its channels were told of.

alter table zapwatch_gateways
  add column if not exists perhaps_offline boolean not null default false,
  add column if not exists refusing_since timestamptz,
  add column if not exists refused uuid[] not null default '{}',
  add column if not exists refusals int not null default 0,
  add column if not exists calm_since timestamptz,
  add column if not exists together_until timestamptz;
comment on column zapwatch_gateways.perhaps_offline is 'no gateway answered since the failures that are counted: we may be offline';
comment on column zapwatch_gateways.refusing_since is 'when the first of the probes began that were refused with their key since it last accepted one';
comment on column zapwatch_gateways.refused_at is 'when the newest of them began; refused: their channels, no more than five; refusals: how many they were';
comment on column zapwatch_gateways.calm_since is 'since when the trouble of an open incident is over that is kept because the gateway flaps';
comment on column zapwatch_gateways.together_until is 'up to which departure from open its channels were told that they left together';

create or replace function zapwatch_alerts_enabled(p_metadata jsonb, p_defaults jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select coalesce(
    case when jsonb_typeof(p_metadata) = 'object' and jsonb_typeof(p_metadata -> 'alerts_enabled') = 'boolean'
      then (p_metadata ->> 'alerts_enabled')::boolean end,
    case when jsonb_typeof(p_defaults) = 'object' and jsonb_typeof(p_defaults -> 'alerts_enabled') = 'boolean'
      then (p_defaults ->> 'alerts_enabled')::boolean end,
    true)
$$;
comment on function zapwatch_alerts_enabled(jsonb, jsonb) is
  'zapwatch: whether a channel''s alerts are sent: its own setting, else its tenant''s, else true';
select zapwatch_close_to_others('function zapwatch_alerts_enabled(jsonb, jsonb)');

create or replace function zapwatch_gateway_explains(p_cause text, p_state text, p_reason text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case p_cause
    when 'mass_loss' then p_state <> 'disconnected/unpaired' and p_reason is distinct from 'scan_needed'
    when 'unauthorized' then p_state = 'error' and p_reason = 'unauthorized'
    else p_state = 'error' and p_reason in (
      'unreachable', 'not_loaded', 'provider_unavailable', 'gateway_unreachable', 'gateway_unavailable')
  end
$$;
comment on function zapwatch_gateway_explains(text, text, text) is
  'zapwatch: whether a gateway''s incident of this cause explains a channel''s state and reason, which a terminal one never is';
select zapwatch_close_to_others('function zapwatch_gateway_explains(text, text, text)');
