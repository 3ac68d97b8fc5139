-- name: event_invoke_config
SELECT document FROM event_invoke_configs WHERE function = :function AND qualifier = :qualifier

-- name: event_invoke_configs
SELECT qualifier, document FROM event_invoke_configs
WHERE function = :function AND qualifier > :after
ORDER BY qualifier LIMIT :limit

-- name: save_event_invoke_config
INSERT INTO event_invoke_configs (function, qualifier, document) VALUES (:function, :qualifier, :document)
ON CONFLICT (function, qualifier) DO UPDATE SET document = excluded.document

-- name: delete_event_invoke_config
DELETE FROM event_invoke_configs WHERE function = :function AND qualifier = :qualifier
