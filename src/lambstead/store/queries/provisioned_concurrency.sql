-- name: provisioned
SELECT document FROM provisioned_concurrency
WHERE function = :function AND qualifier > :after
ORDER BY qualifier LIMIT :limit

-- name: provisioned_everywhere
SELECT document FROM provisioned_concurrency ORDER BY function, qualifier

-- name: save_provisioned
INSERT INTO provisioned_concurrency (function, qualifier, requested, document)
VALUES (:function, :qualifier, :requested, :document)
ON CONFLICT (function, qualifier) DO UPDATE SET requested = excluded.requested, document = excluded.document

-- name: delete_provisioned
DELETE FROM provisioned_concurrency WHERE function = :function AND qualifier = :qualifier
