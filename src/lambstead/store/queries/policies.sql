-- name: policy
SELECT document FROM policies WHERE function = :function AND qualifier = :qualifier

-- name: save_policy
INSERT INTO policies (function, qualifier, document) VALUES (:function, :qualifier, :document)
ON CONFLICT (function, qualifier) DO UPDATE SET document = excluded.document

-- name: delete_policy
DELETE FROM policies WHERE function = :function AND qualifier = :qualifier
