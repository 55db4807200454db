-- Lists that pick few channels or incidents of many find them by index.

create index if not exists idx_zapwatch_states_down on zapwatch_states (channel_id)
  where state not in ('open', 'unknown');
create index if not exists idx_zapwatch_states_never_connected on zapwatch_states (channel_id)
  where not memory @> '{"has_been_open": true}';
create index if not exists idx_wa_incidents_started on whatsapp_connection_incidents (started_at desc, id desc);
