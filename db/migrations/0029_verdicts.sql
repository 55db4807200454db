-- Verdicts of gateways on many channels at once cost no more than they must.

-- Whether another application opened an incident is asked for each that may be caused by a gateway, thousands at once; all
-- other events of those channels need not be read for it.
create index if not exists idx_zapwatch_events_opened_outside on zapwatch_events (channel_id)
  where source = 'operator' and name = 'incident_opened';

-- `memory` changes with nearly every event. An index that depends on it makes each such update write all indexes of the
-- table; a list of channels that were never connected reads the table instead.
drop index if exists idx_zapwatch_states_never_connected;
