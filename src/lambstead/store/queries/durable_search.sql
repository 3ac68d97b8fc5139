-- name: save_durable_attribute
INSERT INTO durable_attributes (execution, name, value) VALUES (:execution, :name, :value)
ON CONFLICT (execution, name) DO UPDATE SET value = excluded.value

-- name: delete_durable_attribute
DELETE FROM durable_attributes WHERE execution = :execution AND name = :name

-- name: delete_durable_attributes
DELETE FROM durable_attributes WHERE execution = :execution

-- name: durable_attributes
SELECT name, value FROM durable_attributes WHERE execution = :execution ORDER BY name

-- The three searches differ in the index that they begin with: one function's executions, those with an attribute, or all of them.
-- name: search_durable_by_function
SELECT id, name, function, version, status, started_at, ended_at, kms_key_arn FROM durable_executions
WHERE function = :function AND status = :status AND (started_at, id) < (:at, :id)
    AND started_at > :started_after AND started_at < :started_before
    AND (:name IS NULL OR name GLOB :name)
    AND (expires_at IS NULL OR expires_at > :now OR status = 'DELETING')
    AND NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS wanted WHERE NOT EXISTS (
            SELECT 1 FROM durable_attributes AS had
            WHERE had.execution = durable_executions.id AND had.name = wanted.key AND had.value = wanted.value
        )
    )
ORDER BY started_at DESC, id DESC LIMIT :limit

-- name: search_durable_by_attribute
SELECT id, executions.name, function, version, status, started_at, ended_at, kms_key_arn
FROM durable_attributes AS first CROSS JOIN durable_executions AS executions ON executions.id = first.execution
WHERE first.name = :attribute AND first.value = :value
    AND (:function IS NULL OR function = :function) AND status = :status AND (started_at, id) < (:at, :id)
    AND started_at > :started_after AND started_at < :started_before
    AND (:name IS NULL OR executions.name GLOB :name)
    AND (expires_at IS NULL OR expires_at > :now OR status = 'DELETING')
    AND NOT EXISTS (
        SELECT 1 FROM json_each(:attributes) AS wanted WHERE NOT EXISTS (
            SELECT 1 FROM durable_attributes AS had
            WHERE had.execution = executions.id AND had.name = wanted.key AND had.value = wanted.value
        )
    )
ORDER BY started_at DESC, id DESC LIMIT :limit

-- name: search_durable
SELECT id, name, function, version, status, started_at, ended_at, kms_key_arn FROM durable_executions
WHERE status = :status AND (started_at, id) < (:at, :id)
    AND started_at > :started_after AND started_at < :started_before
    AND (:name IS NULL OR name GLOB :name)
    AND (expires_at IS NULL OR expires_at > :now OR status = 'DELETING')
ORDER BY started_at DESC, id DESC LIMIT :limit

-- name: durable_subscriptions
SELECT document FROM durable_subscriptions ORDER BY id

-- name: save_durable_subscription
INSERT INTO durable_subscriptions (id, document) VALUES (:id, :document)

-- name: delete_durable_subscription
DELETE FROM durable_subscriptions WHERE id = :id RETURNING id

-- name: insert_durable_notice
INSERT INTO durable_notices (subscription, due, document)
SELECT :subscription, :due, :document WHERE EXISTS (SELECT 1 FROM durable_subscriptions WHERE id = :subscription)

-- name: due_durable_notices
SELECT number, document FROM durable_notices WHERE due <= :now ORDER BY due, number LIMIT :limit

-- name: next_durable_notice
SELECT min(due) FROM durable_notices

-- name: reschedule_durable_notice
UPDATE durable_notices SET due = :due, document = :document WHERE number = :number

-- name: delete_durable_notice
DELETE FROM durable_notices WHERE number = :number

-- name: delete_all_durable_attributes
DELETE FROM durable_attributes

-- name: delete_all_durable_notices
DELETE FROM durable_notices

-- name: delete_all_durable_subscriptions
DELETE FROM durable_subscriptions
