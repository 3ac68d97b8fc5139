-- name: provider
SELECT document FROM capacity_providers WHERE name = :name

-- name: providers
SELECT document FROM capacity_providers
WHERE name > :after AND (:state IS NULL OR state = :state)
ORDER BY name LIMIT :limit

-- name: save_provider
INSERT INTO capacity_providers (name, state, document) VALUES (:name, :state, :document)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, document = excluded.document

-- name: delete_provider
DELETE FROM capacity_providers WHERE name = :name

-- name: tags
SELECT key, value FROM tags WHERE resource = :resource ORDER BY key

-- name: add_tag
INSERT INTO tags (resource, key, value) VALUES (:resource, :key, :value)
ON CONFLICT (resource, key) DO UPDATE SET value = excluded.value

-- name: remove_tag
DELETE FROM tags WHERE resource = :resource AND key = :key

-- name: remove_tags
DELETE FROM tags WHERE resource = :resource

-- name: delete_all_providers
DELETE FROM capacity_providers

-- name: delete_all_tags
DELETE FROM tags
