-- name: list_tenants
-- One page of tenants in the order of ids.
select id, name, locale, time_zone, defaults::text as defaults, created_at, updated_at from tenants
where ($1::uuid is null or id = $1) and ($2::uuid is null or id > $2)
order by id
limit $3;
