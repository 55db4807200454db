-- An incident's life: at most one open per channel, opened and resolved by set-based functions that db/apply uses and
-- the public RPCs wrap.

-- Rows are not resolved silently to make room for the index: which of them is the true one is not ours to guess, and
-- somebody may be on the phone about it. The exception says what to run; nothing else of this file has happened then.
do $do$
declare
  v_channels int;
  v_surplus int;
begin
  select count(*), sum(doubled.rows - 1) into v_channels, v_surplus
  from (
    select count(*) as rows from whatsapp_connection_incidents where resolved_at is null group by channel_id
    having count(*) > 1
  ) as doubled;
  if v_channels > 0 then
    raise exception '% channels have more than one open incident (% too many): whatsapp_connection_incidents cannot get '
      'its unique index uq_wa_incidents_open_per_channel', v_channels, v_surplus
      using errcode = 'unique_violation', hint =
        'To keep the newest of each channel open and resolve the others, run this, then migrate again: '
        'UPDATE whatsapp_connection_incidents i SET resolved_at = now(), '
        'duration_seconds = extract(epoch FROM now() - started_at) WHERE resolved_at IS NULL AND EXISTS '
        '(SELECT FROM whatsapp_connection_incidents n WHERE n.channel_id = i.channel_id AND n.resolved_at IS NULL '
        'AND (n.started_at, n.id) > (i.started_at, i.id));';
  end if;
end $do$;

create unique index if not exists uq_wa_incidents_open_per_channel on whatsapp_connection_incidents (channel_id)
  where resolved_at is null;
create index if not exists idx_wa_incidents_tenant_started on whatsapp_connection_incidents (tenant_id, started_at desc);
create index if not exists idx_wa_incidents_open on whatsapp_connection_incidents (tenant_id, started_at desc)
  where resolved_at is null;
create index if not exists idx_wa_incidents_channel_started on whatsapp_connection_incidents (channel_id, started_at desc);

do $do$
begin
  if not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = 'whatsapp_connection_incidents'::regclass and i.indisunique and i.indisvalid and i.indnatts = 1
      and a.attname = 'channel_id' and pg_get_expr(i.indpred, i.indrelid) = '(resolved_at IS NULL)'
  ) then
    raise exception 'the index uq_wa_incidents_open_per_channel exists and is another one than Zapwatch needs'
      using hint = 'Rename it, then migrate again.';
  end if;

  if obj_description('whatsapp_connection_incidents'::regclass, 'pg_class') is null then
    comment on table whatsapp_connection_incidents is
      'When a WhatsApp channel was unhealthy, and who was told; open while resolved_at is null; kept by Zapwatch';
  end if;

  if not exists (
    select from pg_trigger
    where tgrelid = 'whatsapp_connection_incidents'::regclass and tgname = 'trg_wa_incidents_updated_at'
  ) then
    create trigger trg_wa_incidents_updated_at before update on whatsapp_connection_incidents
      for each row execute function set_updated_at();
  end if;
end $do$;

do $do$
begin
  -- Policies do nothing where an application keeps row security off; then members get no grant either, or every
  -- tenant could read all others'. `zapwatch doctor` names the missing grant.
  if (select relrowsecurity from pg_class where oid = 'whatsapp_connection_incidents'::regclass) then
    grant select on whatsapp_connection_incidents to authenticated;
  end if;
  grant select, insert, update, delete on whatsapp_connection_incidents to service_role;

  if not exists (
    select from pg_policy
    where polrelid = 'whatsapp_connection_incidents'::regclass and polname = 'wa_incidents_select_members'
  ) then
    create policy wa_incidents_select_members on whatsapp_connection_incidents for select to authenticated
      using (tenant_id in (select zapwatch_member_tenants()));
  end if;
  if not exists (
    select from pg_policy
    where polrelid = 'whatsapp_connection_incidents'::regclass and polname = 'wa_incidents_select_saas_admin'
  ) then
    create policy wa_incidents_select_saas_admin on whatsapp_connection_incidents for select to authenticated
      using ((select is_saas_admin()));
  end if;
  if not exists (
    select from pg_policy
    where polrelid = 'whatsapp_connection_incidents'::regclass and polname = 'wa_incidents_service_role_all'
  ) then
    create policy wa_incidents_service_role_all on whatsapp_connection_incidents to service_role
      using (true) with check (true);
  end if;
end $do$;

create or replace function zapwatch_incidents_open(
  p_channel_ids uuid[], p_kinds text[], p_last_states text[], p_details jsonb[],
  p_started_at timestamptz[], p_opened_at timestamptz[]
) returns table (channel_id uuid, incident_id uuid, opened boolean)
language sql volatile set search_path = pg_catalog, public, pg_temp as $$
  with given as (
    select c.id as channel_id, c.tenant_id, c.provider, g.kind, g.last_state, g.details, g.started_at, g.opened_at
    from unnest(p_channel_ids, p_kinds, p_last_states, p_details, p_started_at, p_opened_at)
      as g (channel_id, kind, last_state, details, started_at, opened_at)
    join notification_channels c on c.id = g.channel_id and c.deleted_at is null
  ), incident as (
    insert into whatsapp_connection_incidents as i
      (tenant_id, channel_id, provider, kind, last_state, details, started_at, opened_at)
    select g.tenant_id, g.channel_id, g.provider::text, g.kind, g.last_state, coalesce(g.details, '{}'), g.started_at,
      g.opened_at
    from given g order by g.channel_id
    on conflict (channel_id) where resolved_at is null do update set
      kind = excluded.kind,
      last_state = coalesce(excluded.last_state, i.last_state),
      details = coalesce((select g.details from given g where g.channel_id = excluded.channel_id), i.details)
    returning i.id, i.channel_id, i.tenant_id, i.xmax = 0 as opened
  ), alert as (
    insert into zapwatch_alerts (incident_id, channel_id, tenant_id, kind)
    select i.id, i.channel_id, i.tenant_id, 'opened' from incident i where i.opened
  )
  select i.channel_id, i.id, i.opened from incident i
$$;
comment on function zapwatch_incidents_open(uuid[], text[], text[], jsonb[], timestamptz[], timestamptz[]) is
  'zapwatch: opens or updates the incident of each channel (each at most once in a call; deleted ones are skipped); null '
  'keeps last_state and details; a new one gets its alert';
select zapwatch_close_to_others(
  'function zapwatch_incidents_open(uuid[], text[], text[], jsonb[], timestamptz[], timestamptz[])');

create or replace function zapwatch_incidents_resolve(
  p_channel_ids uuid[], p_resolved_at timestamptz[], p_details jsonb[], p_tell boolean[]
) returns table (channel_id uuid, incident_id uuid)
language sql volatile set search_path = pg_catalog, public, pg_temp as $$
  with incident as (
    update whatsapp_connection_incidents i set
      resolved_at = greatest(g.resolved_at, i.started_at),
      duration_seconds = floor(extract(epoch from greatest(g.resolved_at, i.started_at) - i.started_at))::int,
      details = case when g.details is null then i.details else coalesce(i.details, '{}') || g.details end
    from unnest(p_channel_ids, p_resolved_at, p_details, p_tell) as g (channel_id, resolved_at, details, tell)
    where i.channel_id = g.channel_id and i.resolved_at is null
    returning i.id, i.channel_id, i.tenant_id, g.tell
  ), alert as (
    insert into zapwatch_alerts (incident_id, channel_id, tenant_id, kind)
    select i.id, i.channel_id, i.tenant_id, 'resolved' from incident i where i.tell
  )
  select i.channel_id, i.id from incident i
$$;
comment on function zapwatch_incidents_resolve(uuid[], timestamptz[], jsonb[], boolean[]) is
  'zapwatch: resolves the open incident of each channel, deleted ones included; details are merged in; with tell: an alert';
select zapwatch_close_to_others('function zapwatch_incidents_resolve(uuid[], timestamptz[], jsonb[], boolean[])');

create or replace function zapwatch_incidents_record(
  p_channel_ids uuid[], p_kinds text[], p_last_states text[], p_details jsonb[],
  p_started_at timestamptz[], p_opened_at timestamptz[], p_resolved_at timestamptz[]
) returns table (channel_id uuid, incident_id uuid)
language sql volatile set search_path = pg_catalog, public, pg_temp as $$
  with incident as (
    insert into whatsapp_connection_incidents as i
      (tenant_id, channel_id, provider, kind, last_state, details, started_at, opened_at, resolved_at, duration_seconds)
    select c.tenant_id, c.id, c.provider::text, g.kind, g.last_state, coalesce(g.details, '{}'), g.started_at, g.opened_at,
      greatest(g.resolved_at, g.started_at),
      floor(extract(epoch from greatest(g.resolved_at, g.started_at) - g.started_at))::int
    from unnest(p_channel_ids, p_kinds, p_last_states, p_details, p_started_at, p_opened_at, p_resolved_at)
      with ordinality
      as g (channel_id, kind, last_state, details, started_at, opened_at, resolved_at, place)
    join notification_channels c on c.id = g.channel_id and c.deleted_at is null
    order by g.place
    returning i.id, i.channel_id, i.tenant_id
  ), alert as (
    insert into zapwatch_alerts (incident_id, channel_id, tenant_id, kind)
    select i.id, i.channel_id, i.tenant_id, told.kind
    from incident i cross join (values (1, 'opened'), (2, 'resolved')) as told (place, kind)
    order by told.place
  )
  select i.channel_id, i.id from incident i
$$;
comment on function
  zapwatch_incidents_record(uuid[], text[], text[], jsonb[], timestamptz[], timestamptz[], timestamptz[]) is
  'zapwatch: inserts incidents that opened and resolved within one batch, several a channel allowed, with both alerts';
select zapwatch_close_to_others(
  'function zapwatch_incidents_record(uuid[], text[], text[], jsonb[], timestamptz[], timestamptz[], timestamptz[])');

create or replace function zapwatch_heard_from_outside(p_channel_id uuid, p_name text, p_data jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, public, pg_temp as $$
declare
  v_state text := coalesce((select state from zapwatch_states where channel_id = p_channel_id), 'unknown');
begin
  update zapwatch_states set due_at = least(due_at, now()) where channel_id = p_channel_id;
  -- A caller that repeats itself every minute fills one row.
  update zapwatch_events e set count = e.count + 1, last_received_at = now()
  where e.id = (select max(id) from zapwatch_events where channel_id = p_channel_id)
    and (e.source, e.name, e.state, e.data) = ('operator', p_name, v_state, p_data);
  if not found then
    insert into zapwatch_events (channel_id, tenant_id, source, name, received_at, last_received_at, state, data)
    select c.id, c.tenant_id, 'operator', p_name, now(), now(), v_state, p_data
    from notification_channels c where c.id = p_channel_id;
  end if;
end $$;
comment on function zapwatch_heard_from_outside(uuid, text, jsonb) is
  'zapwatch: leaves the event of a call from outside and makes the channel due';
select zapwatch_close_to_others('function zapwatch_heard_from_outside(uuid, text, jsonb)');

-- The public functions. One that is there and has not our comment belongs to another application and stays;
-- `zapwatch doctor` names it. The state's row is locked before the incident's, in apply's order.
create or replace function zapwatch_may_define(p_function text) returns boolean
language sql stable set search_path = pg_catalog, public, pg_temp as $$
  select to_regprocedure(p_function) is null
    or coalesce(obj_description(to_regprocedure(p_function), 'pg_proc') like 'zapwatch:%', false)
$$;
comment on function zapwatch_may_define(text) is 'zapwatch: true when the function is missing or ours';
select zapwatch_close_to_others('function zapwatch_may_define(text)');

do $do$
begin
  if zapwatch_may_define('public.whatsapp_heartbeat_open_incident(uuid, text, text, jsonb)') then
    create or replace function whatsapp_heartbeat_open_incident(
      p_channel_id uuid, p_kind text, p_last_state text default null, p_details jsonb default null
    ) returns uuid
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp as $body$
    declare
      v_incident uuid;
    begin
      if p_kind is null or p_kind not in ('disconnected', 'error', 'qr_pending', 'connecting', 'unknown') then
        raise exception 'invalid_kind: %', p_kind;
      end if;
      perform from zapwatch_states where channel_id = p_channel_id for no key update;
      select o.incident_id into v_incident
      from zapwatch_incidents_open(
        array[p_channel_id], array[p_kind], array[p_last_state], array[p_details], array[now()], array[now()]) as o;
      if v_incident is null then
        raise exception 'channel_not_found';
      end if;
      perform zapwatch_heard_from_outside(p_channel_id, 'incident_opened',
        jsonb_build_object('kind', p_kind, 'last_state', p_last_state, 'details', p_details));
      return v_incident;
    end $body$;
    comment on function whatsapp_heartbeat_open_incident(uuid, text, text, jsonb) is
      'zapwatch: opens the channel''s incident or updates the open one, returns its id; raises channel_not_found, '
      'invalid_kind: X';
    perform zapwatch_close_to_others('function whatsapp_heartbeat_open_incident(uuid, text, text, jsonb)');
    grant execute on function whatsapp_heartbeat_open_incident(uuid, text, text, jsonb) to service_role;
  end if;

  if zapwatch_may_define('public.whatsapp_heartbeat_resolve_open_incidents(uuid)') then
    create or replace function whatsapp_heartbeat_resolve_open_incidents(p_channel_id uuid) returns int
    language plpgsql volatile security definer set search_path = pg_catalog, public, pg_temp as $body$
    declare
      v_incident whatsapp_connection_incidents;
    begin
      perform from zapwatch_states where channel_id = p_channel_id for no key update;
      select i.* into v_incident
      from zapwatch_incidents_resolve(array[p_channel_id], array[now()], array[null::jsonb], array[true]) as r
      join whatsapp_connection_incidents i on i.id = r.incident_id;
      if v_incident.id is null then
        return 0;
      end if;
      perform zapwatch_heard_from_outside(p_channel_id, 'incident_resolved', jsonb_build_object(
        'kind', v_incident.kind, 'last_state', v_incident.last_state, 'details', v_incident.details));
      return 1;
    end $body$;
    comment on function whatsapp_heartbeat_resolve_open_incidents(uuid) is
      'zapwatch: resolves the channel''s open incident, returns how many there were (0 or 1)';
    perform zapwatch_close_to_others('function whatsapp_heartbeat_resolve_open_incidents(uuid)');
    grant execute on function whatsapp_heartbeat_resolve_open_incidents(uuid) to service_role;
  end if;

  if zapwatch_may_define('public.whatsapp_heartbeat_mark_notified(uuid)') then
    create or replace function whatsapp_heartbeat_mark_notified(p_incident_id uuid) returns void
    language sql volatile security definer set search_path = pg_catalog, public, pg_temp as $body$
      update whatsapp_connection_incidents set notified_at = now(), notification_count = notification_count + 1
      where id = p_incident_id
    $body$;
    comment on function whatsapp_heartbeat_mark_notified(uuid) is
      'zapwatch: notes that somebody was told of the incident, and when last';
    perform zapwatch_close_to_others('function whatsapp_heartbeat_mark_notified(uuid)');
    grant execute on function whatsapp_heartbeat_mark_notified(uuid) to service_role;
  end if;
end $do$;
