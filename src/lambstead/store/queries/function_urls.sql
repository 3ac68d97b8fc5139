-- name: function_url
SELECT document FROM function_urls WHERE function = :function AND qualifier = :qualifier

-- name: function_urls
SELECT document FROM function_urls
WHERE function = :function AND (:after IS NULL OR qualifier > :after)
ORDER BY qualifier LIMIT :limit

-- name: function_url_by_id
SELECT document FROM function_urls WHERE url_id = :url_id

-- name: save_function_url
INSERT INTO function_urls (function, qualifier, url_id, document) VALUES (:function, :qualifier, :url_id, :document)
ON CONFLICT (function, qualifier) DO UPDATE SET url_id = excluded.url_id, document = excluded.document

-- name: delete_function_url
DELETE FROM function_urls WHERE function = :function AND qualifier = :qualifier
