-- What 0005's triggers do from now on, for the channels that are there; apart from it, so that nobody waits for a lock
-- on the whole table.
update zapwatch_states s set gateway_id = c.gateway_id from zapwatch_channels c
where c.channel_id = s.channel_id and s.gateway_id is distinct from c.gateway_id;
