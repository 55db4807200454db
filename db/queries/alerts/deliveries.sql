-- name: list_decisions
-- One page of decisions about alerts and destinations, newest first; a tenant sees no operators' destination.
select d.id, d.at, d.event, d.incident_id, d.gateway_incident_id, d.channel_id, d.tenant_id, d.is_sent, d.why,
  d.destination_id, t.kind as destination_kind, t.name as destination_name,
  d.message_id, m.purpose, m.due_at, m.tries, m.settled_at, m.outcome
from zapwatch_decisions d
left join zapwatch_destinations t on t.id = d.destination_id
left join zapwatch_messages m on m.id = d.message_id
where ($1::uuid is null or (d.tenant_id = $1 and (d.destination_id is null or t.tenant_id = $1)))
  and ($2::uuid is null or d.subject_id = $2)
  and ($3::uuid is null or d.destination_id = $3)
  and ($4::bigint is null or d.id < $4)
order by d.id desc
limit $5;

-- name: list_attempts
-- Each try to deliver these messages, newest first.
select message_id, at, took_ms, is_ok, status, answer from zapwatch_attempts
where message_id = any($1::uuid[])
order by id desc;

-- name: read_tested
-- When a destination was last tested, if that was after $2.
select max(leaves_at) from zapwatch_messages where destination_id = $1 and leaves_at > $2 and purpose = 'test';

-- name: begin_test
-- Write a test message; it is sent once, now, and counts as failed until its result is known.
insert into zapwatch_messages (id, destination_id, tenant_id, purpose, due_at, leaves_at, tries, settled_at, outcome)
values ($1, $2, $3, 'test', $4, $4, 1, $4, 'failed');

-- name: end_test
-- Write the result of a test with its decision, unless the destination was deleted meanwhile.
with destination as (
  select id from zapwatch_destinations where id = $2 for key share
), message as (
  update zapwatch_messages m
  set settled_at = now(), outcome = case when $5 then 'delivered' else 'failed' end
  from destination d
  where m.id = $1 and m.destination_id = d.id
  returning m.id, m.destination_id, m.tenant_id
), decision as (
  insert into zapwatch_decisions (tenant_id, destination_id, event, is_sent, why, message_id)
  select tenant_id, destination_id, 'test', true, 'asked', id from message
)
insert into zapwatch_attempts (message_id, destination_id, tenant_id, at, took_ms, is_ok, status, answer)
select id, destination_id, tenant_id, $3, $4, $5, $6, $7 from message;
