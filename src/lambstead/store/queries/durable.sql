-- name: insert_durable_execution
INSERT INTO durable_executions
    (id, function, version, name, status, started_at, ended_at, wake_at, live, expires_at, kms_key_arn, input_digest, document)
VALUES
    (:id, :function, :version, :name, :status, :started_at, :ended_at, :wake_at, :live, :expires_at, :kms_key_arn, :input_digest, :document)

-- name: insert_durable_input
INSERT INTO durable_inputs (execution, payload) VALUES (:execution, :payload)

-- name: update_durable_execution
UPDATE durable_executions
SET status = :status, ended_at = :ended_at, wake_at = :wake_at, live = :live, expires_at = :expires_at, document = :document
WHERE id = :id

-- name: save_durable_operation
INSERT INTO durable_operations (execution, sequence, document) VALUES (?, ?, ?)
ON CONFLICT (execution, sequence) DO UPDATE SET document = excluded.document

-- name: insert_durable_event
INSERT INTO durable_events (execution, number, document) VALUES (?, ?, ?)

-- name: durable_execution
SELECT document FROM durable_executions WHERE id = :id

-- name: durable_input
SELECT payload FROM durable_inputs WHERE execution = :execution

-- name: durable_operations
SELECT document FROM durable_operations WHERE execution = :execution ORDER BY sequence

-- name: durable_execution_named
SELECT document, input_digest FROM durable_executions WHERE function = :function AND name = :name

-- name: durable_execution_id
SELECT id FROM durable_executions WHERE function = :function AND name = :name

-- name: durable_events
SELECT document FROM durable_events
WHERE execution = :execution AND number > :after ORDER BY number LIMIT :limit

-- name: durable_events_backwards
SELECT document FROM durable_events
WHERE execution = :execution AND number < :before ORDER BY number DESC LIMIT :limit

-- What has expired is not shown although its rows are still there; what is being deleted is.
-- name: durable_executions_newest
SELECT id, name, function, version, status, started_at, ended_at, kms_key_arn FROM durable_executions
WHERE function = :function AND status = :status AND (started_at, id) < (:at, :id)
    AND started_at > :started_after AND started_at < :started_before
    AND (:version IS NULL OR version = :version)
    AND (expires_at IS NULL OR expires_at > :now OR status = 'DELETING')
ORDER BY started_at DESC, id DESC LIMIT :limit

-- name: durable_executions_oldest
SELECT id, name, function, version, status, started_at, ended_at, kms_key_arn FROM durable_executions
WHERE function = :function AND status = :status AND (started_at, id) > (:at, :id)
    AND started_at > :started_after AND started_at < :started_before
    AND (:version IS NULL OR version = :version)
    AND (expires_at IS NULL OR expires_at > :now OR status = 'DELETING')
ORDER BY started_at, id LIMIT :limit

-- name: due_durable_executions
SELECT id FROM durable_executions WHERE wake_at <= :now ORDER BY wake_at LIMIT :limit

-- name: next_durable_wake
SELECT min(wake_at) FROM durable_executions WHERE wake_at IS NOT NULL AND wake_at > :after

-- name: live_durable_executions
SELECT id FROM durable_executions WHERE live = 1

-- name: expired_durable_executions
SELECT id FROM durable_executions WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit

-- name: next_durable_expiry
SELECT min(expires_at) FROM durable_executions WHERE expires_at IS NOT NULL

-- name: durable_totals
SELECT status, executions FROM durable_totals WHERE executions > 0

-- name: save_durable_errand
INSERT INTO durable_errands (execution, operation, child, refusals, due)
VALUES (:execution, :operation, :child, :refusals, :due)
ON CONFLICT (execution, operation) DO UPDATE SET child = excluded.child, refusals = excluded.refusals, due = excluded.due

-- name: due_durable_errands
SELECT execution, operation, child, refusals FROM durable_errands WHERE due <= :now ORDER BY due LIMIT :limit

-- name: next_durable_errand
SELECT min(due) FROM durable_errands WHERE due > :after

-- name: delete_durable_errand
DELETE FROM durable_errands WHERE execution = :execution AND operation = :operation

-- name: delete_durable_operations
DELETE FROM durable_operations WHERE execution = :execution
    AND sequence IN (SELECT sequence FROM durable_operations WHERE execution = :execution LIMIT :limit)
RETURNING 1

-- name: delete_durable_events
DELETE FROM durable_events WHERE execution = :execution
    AND number IN (SELECT number FROM durable_events WHERE execution = :execution LIMIT :limit)
RETURNING 1

-- name: delete_durable_input
DELETE FROM durable_inputs WHERE execution = :execution

-- name: delete_durable_errands
DELETE FROM durable_errands WHERE execution = :execution

-- name: delete_durable_execution
DELETE FROM durable_executions WHERE id = :id

-- name: delete_all_durable_executions
DELETE FROM durable_executions

-- name: delete_all_durable_inputs
DELETE FROM durable_inputs

-- name: delete_all_durable_operations
DELETE FROM durable_operations

-- name: delete_all_durable_events
DELETE FROM durable_events

-- name: delete_all_durable_errands
DELETE FROM durable_errands
