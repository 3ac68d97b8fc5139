-- name: next_layer_number
INSERT INTO layers (name, last_number) VALUES (:name, 1)
ON CONFLICT (name) DO UPDATE SET last_number = last_number + 1
RETURNING last_number

-- name: layer_version
SELECT document FROM layer_versions WHERE name = :name AND number = :number

-- name: layer_versions
SELECT document FROM layer_versions WHERE name = :name AND number < :below ORDER BY number DESC LIMIT :limit

-- name: layer_names
SELECT name FROM layers WHERE name > :after ORDER BY name LIMIT :limit

-- name: save_layer_version
INSERT INTO layer_versions (name, number, package, document) VALUES (:name, :number, :package, :document)
ON CONFLICT (name, number) DO UPDATE SET document = excluded.document

-- name: delete_layer_version
DELETE FROM layer_versions WHERE name = :name AND number = :number

-- Packages of layers live as long as a layer version or a function version refers to them. Read at start only, so no column is kept for it.
-- name: layer_packages
SELECT package FROM layer_versions
UNION
SELECT json_extract(layer.value, '$.code.sha256')
FROM versions, json_each(versions.document, '$.configuration.layers') AS layer

-- name: layer_stacks
SELECT DISTINCT json_extract(document, '$.configuration.layers') FROM versions
WHERE json_array_length(document, '$.configuration.layers') > 0

-- name: delete_all_layers
DELETE FROM layers
