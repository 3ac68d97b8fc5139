-- name: code_signing_config
SELECT document FROM code_signing_configs WHERE id = :id

-- name: code_signing_configs
SELECT document FROM code_signing_configs WHERE id > :after ORDER BY id LIMIT :limit

-- name: functions_with_code_signing
SELECT name FROM functions WHERE code_signing_config = :id AND name > :after ORDER BY name LIMIT :limit

-- name: save_code_signing_config
INSERT INTO code_signing_configs (id, document) VALUES (:id, :document)
ON CONFLICT (id) DO UPDATE SET document = excluded.document

-- name: delete_code_signing_config
DELETE FROM code_signing_configs WHERE id = :id

-- name: delete_all_code_signing_configs
DELETE FROM code_signing_configs
