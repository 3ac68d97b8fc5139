-- name: versions_of_function
SELECT document FROM versions WHERE function = :function ORDER BY ordinal

-- name: version
SELECT document FROM versions WHERE function = :function AND ordinal = :ordinal

-- name: functions
SELECT document FROM versions WHERE ordinal = -1 AND function > :after ORDER BY function LIMIT :limit

-- name: versions_of_all
SELECT document FROM versions
WHERE (function, ordinal) > (:after_function, :after_ordinal)
ORDER BY function, ordinal LIMIT :limit

-- name: versions_of_one
SELECT document FROM versions
WHERE function = :function AND ordinal > :after_ordinal
ORDER BY ordinal LIMIT :limit

-- name: unsettled
SELECT document FROM versions WHERE unsettled = 1 ORDER BY function, ordinal

-- name: published_on_providers
SELECT document FROM versions WHERE provider IS NOT NULL AND ordinal >= 0 ORDER BY function, ordinal

-- name: versions_on
SELECT document FROM versions
WHERE provider = :provider AND (function, ordinal) > (:after_function, :after_ordinal)
ORDER BY function, ordinal LIMIT :limit

-- name: packages
SELECT DISTINCT package FROM versions

-- name: create_function
INSERT INTO functions (name) VALUES (:function) ON CONFLICT (name) DO NOTHING

-- name: next_number
UPDATE functions SET last_number = last_number + 1 WHERE name = :function RETURNING last_number

-- name: save_version
INSERT INTO versions (function, ordinal, version, unsettled, provider, package, document)
VALUES (:function, :ordinal, :version, :unsettled, :provider, :package, :document)
ON CONFLICT (function, ordinal) DO UPDATE
SET unsettled = excluded.unsettled, provider = excluded.provider, package = excluded.package, document = excluded.document

-- name: delete_version
DELETE FROM versions WHERE function = :function AND ordinal = :ordinal

-- name: delete_function_without_versions
DELETE FROM functions WHERE name = :function AND NOT EXISTS (SELECT 1 FROM versions WHERE function = :function)
RETURNING name

-- name: alias
SELECT document FROM aliases WHERE function = :function AND name = :name

-- name: aliases_of_function
SELECT document FROM aliases WHERE function = :function AND name > :after ORDER BY name LIMIT :limit

-- name: save_alias
INSERT INTO aliases (function, name, document) VALUES (:function, :name, :document)
ON CONFLICT (function, name) DO UPDATE SET document = excluded.document

-- name: delete_alias
DELETE FROM aliases WHERE function = :function AND name = :name

-- name: function_names
SELECT name FROM functions

-- name: delete_all_functions
DELETE FROM functions
