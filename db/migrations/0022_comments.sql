-- The comments that name modules, by their present names.
comment on table zapwatch_states is 'A channel''s state; hot and narrow; its one writer is db/ingest/apply.py';
comment on column zapwatch_states.memory is 'evidence, rules last seen, departures, probe streak (suspicion): db/codec/channel.py';
comment on column zapwatch_gateways.state is 'down exactly while it has an open incident; its one writer is db/reconcile/gateway_health.py';
