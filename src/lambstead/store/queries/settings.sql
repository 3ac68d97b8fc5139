-- name: function_settings
SELECT reserved_concurrency, recursive_loop, code_signing_config FROM functions WHERE name = :function

-- name: save_function_settings
UPDATE functions
SET reserved_concurrency = :reserved, recursive_loop = :recursive_loop, code_signing_config = :code_signing_config
WHERE name = :function

-- name: concurrency_taken
-- A reservation covers what the function has provisioned, so only one of the two counts.
SELECT
    (SELECT coalesce(sum(reserved_concurrency), 0) FROM functions WHERE reserved_concurrency IS NOT NULL)
    + (SELECT coalesce(sum(requested), 0) FROM provisioned_concurrency
       WHERE function NOT IN (SELECT name FROM functions WHERE reserved_concurrency IS NOT NULL))

-- name: usage
SELECT
    (SELECT count(*) FROM functions),
    (SELECT coalesce(sum(json_extract(document, '$.configuration.code.size_bytes')), 0) FROM versions)
        + (SELECT coalesce(sum(json_extract(document, '$.code.size_bytes')), 0) FROM layer_versions)

-- name: runtime_management
SELECT document FROM runtime_management_configs WHERE function = :function AND qualifier = :qualifier

-- name: save_runtime_management
INSERT INTO runtime_management_configs (function, qualifier, document) VALUES (:function, :qualifier, :document)
ON CONFLICT (function, qualifier) DO UPDATE SET document = excluded.document

-- name: delete_runtime_management
DELETE FROM runtime_management_configs WHERE function = :function AND qualifier = :qualifier
