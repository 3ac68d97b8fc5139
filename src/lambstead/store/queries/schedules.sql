-- name: schedule_group
SELECT document FROM schedule_groups WHERE name = :name

-- name: schedule_groups
SELECT document FROM schedule_groups
WHERE name > :after AND substr(name, 1, length(:prefix)) = :prefix
ORDER BY name LIMIT :limit

-- name: count_schedule_groups
SELECT count(*) FROM schedule_groups

-- name: save_schedule_group
INSERT INTO schedule_groups (name, document) VALUES (:name, :document)
ON CONFLICT (name) DO UPDATE SET document = excluded.document

-- name: delete_schedule_group
DELETE FROM schedule_groups WHERE name = :name

-- name: schedule
SELECT document FROM schedules WHERE group_name = :group AND name = :name

-- name: schedules
SELECT document FROM schedules
WHERE (group_name, name) > (:after_group, :after_name)
  AND (:group IS NULL OR group_name = :group)
  AND (:state IS NULL OR state = :state)
  AND substr(name, 1, length(:prefix)) = :prefix
ORDER BY group_name, name LIMIT :limit

-- name: due_schedules
SELECT document FROM schedules WHERE due <= :now ORDER BY due LIMIT :limit

-- name: next_schedule
SELECT min(due) FROM schedules WHERE due IS NOT NULL

-- name: save_schedule
INSERT INTO schedules (group_name, name, state, due, document) VALUES (:group, :name, :state, :due, :document)
ON CONFLICT (group_name, name) DO UPDATE
SET state = excluded.state, due = excluded.due, document = excluded.document

-- name: delete_schedule
DELETE FROM schedules WHERE group_name = :group AND name = :name

-- name: insert_scheduled_invocation
INSERT INTO schedule_invocations (id, due, owner, document) VALUES (:id, :due, NULL, :document)

-- name: next_scheduled_invocation
SELECT min(due) FROM schedule_invocations

-- name: claim_scheduled_invocations
UPDATE schedule_invocations SET owner = :owner, due = :until
WHERE id IN (SELECT id FROM schedule_invocations WHERE due <= :now ORDER BY due LIMIT :limit)
RETURNING document

-- name: delete_scheduled_invocation
DELETE FROM schedule_invocations WHERE id = :id AND owner = :owner RETURNING id

-- name: release_scheduled_invocations
UPDATE schedule_invocations SET due = :now, owner = NULL WHERE owner IS NOT NULL

-- name: schedule_request
SELECT fingerprint FROM schedule_requests
WHERE resource = :resource AND operation = :operation AND token = :token AND until > :now

-- name: forget_schedule_requests
DELETE FROM schedule_requests WHERE until <= :now

-- name: save_schedule_request
INSERT INTO schedule_requests (operation, resource, token, fingerprint, until)
VALUES (:operation, :resource, :token, :fingerprint, :until)
ON CONFLICT (resource, operation, token) DO UPDATE SET fingerprint = excluded.fingerprint, until = excluded.until

-- name: delete_all_schedules
DELETE FROM schedules

-- name: delete_all_schedule_groups
DELETE FROM schedule_groups WHERE name <> 'default'

-- name: delete_all_scheduled_invocations
DELETE FROM schedule_invocations

-- name: delete_all_schedule_requests
DELETE FROM schedule_requests
