-- name: insert_event
INSERT INTO queued_events (request_id, function, due, owner, document, payload)
VALUES (:request_id, :function, :due, NULL, :document, :payload)

-- name: add_to_totals
UPDATE queue_totals SET events = events + :events, payload_bytes = payload_bytes + :payload_bytes

-- name: queue_totals
SELECT events, payload_bytes FROM queue_totals

-- One look per function instead of one per event: each step finds the next larger name in the index.
-- name: next_events
WITH RECURSIVE names (function) AS (
    SELECT min(function) FROM queued_events
    UNION ALL
    SELECT (SELECT min(q.function) FROM queued_events q WHERE q.function > names.function)
    FROM names WHERE names.function IS NOT NULL
)
SELECT function, (SELECT min(due) FROM queued_events q WHERE q.function = names.function)
FROM names WHERE function IS NOT NULL

-- name: claim_events
UPDATE queued_events SET owner = :owner, due = :until
WHERE request_id IN (
    SELECT request_id FROM queued_events WHERE function = :function AND due <= :now ORDER BY due LIMIT :limit
)
RETURNING document, payload

-- name: reschedule_event
UPDATE queued_events SET due = :due, owner = NULL, document = :document
WHERE request_id = :request_id AND owner = :owner
RETURNING request_id

-- name: delete_event
DELETE FROM queued_events WHERE request_id = :request_id AND owner = :owner RETURNING length(payload)

-- name: extend_event
UPDATE queued_events SET due = :until WHERE request_id = :request_id AND owner = :owner

-- name: release_event_leases
UPDATE queued_events SET due = :now, owner = NULL WHERE owner IS NOT NULL

-- name: insert_delivery
INSERT INTO deliveries (id, due, owner, document) VALUES (:id, :due, NULL, :document) ON CONFLICT (id) DO NOTHING

-- name: next_delivery
SELECT min(due) FROM deliveries

-- name: claim_deliveries
UPDATE deliveries SET owner = :owner, due = :until
WHERE id IN (SELECT id FROM deliveries WHERE due <= :now ORDER BY due LIMIT :limit)
RETURNING document

-- name: reschedule_delivery
UPDATE deliveries SET due = :due, owner = NULL, document = :document WHERE id = :id AND owner = :owner

-- name: delete_delivery
DELETE FROM deliveries WHERE id = :id AND owner = :owner

-- name: extend_delivery
UPDATE deliveries SET due = :until WHERE id = :id AND owner = :owner

-- name: release_delivery_leases
UPDATE deliveries SET due = :now, owner = NULL WHERE owner IS NOT NULL

-- name: delete_all_events
DELETE FROM queued_events

-- name: delete_all_deliveries
DELETE FROM deliveries

-- name: reset_totals
UPDATE queue_totals SET events = 0, payload_bytes = 0
