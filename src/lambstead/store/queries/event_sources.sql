-- name: event_source_mapping
SELECT document FROM event_source_mappings WHERE id = :id

-- name: event_source_mappings
SELECT document FROM event_source_mappings
WHERE id > :after AND (:source IS NULL OR source = :source) AND (:function IS NULL OR function = :function)
ORDER BY id LIMIT :limit

-- name: unsettled_event_source_mappings
SELECT document FROM event_source_mappings WHERE unsettled = 1 ORDER BY id LIMIT :limit

-- name: save_event_source_mapping
INSERT INTO event_source_mappings (id, source, function, unsettled, document)
VALUES (:id, :source, :function, :unsettled, :document)
ON CONFLICT (id) DO UPDATE
SET function = excluded.function, unsettled = excluded.unsettled, document = excluded.document

-- name: delete_event_source_mapping
DELETE FROM event_source_mappings WHERE id = :id

-- name: delete_all_event_source_mappings
DELETE FROM event_source_mappings
