-- Asynchronous invocations that were acknowledged and have not ended, and messages to other services that come of them.
-- Both are taken under a lease: `due` is when a row may be taken, and for a taken row when its taker's word for it expires.
-- Rows name functions without a foreign key: a function that is deleted ends its events through the loop, where they are counted.

CREATE TABLE queued_events (
    request_id  TEXT PRIMARY KEY,
    function    TEXT NOT NULL,
    due         INTEGER NOT NULL,                 -- epoch milliseconds
    owner       TEXT,                             -- the server run that has it; NULL while it waits
    document    TEXT NOT NULL,                    -- the event without its payload, rewritten at every attempt
    payload     BLOB NOT NULL
);                                                -- with row ids: payloads of a megabyte do not belong into the key's tree

-- The loop looks for the first due event of each function, so that one function's backlog does not hide another's events.
CREATE INDEX queued_events_due ON queued_events (function, due);

CREATE TABLE queue_totals (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    events         INTEGER NOT NULL,              -- kept by the statements that insert and delete: counting rows takes too long
    payload_bytes  INTEGER NOT NULL
);

INSERT INTO queue_totals VALUES (1, 0, 0);

CREATE TABLE deliveries (
    id        TEXT PRIMARY KEY,                   -- request id and kind of message: the same message is never kept twice
    due       INTEGER NOT NULL,
    owner     TEXT,
    document  TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX deliveries_due ON deliveries (due);

-- Layers and their versions. The number of a deleted version is never given out again, so a layer's row outlives its versions.

CREATE TABLE layers (
    name         TEXT PRIMARY KEY,
    last_number  INTEGER NOT NULL                 -- highest version number ever given out
) WITHOUT ROWID;

CREATE TABLE layer_versions (
    name      TEXT NOT NULL REFERENCES layers (name) ON DELETE CASCADE,
    number    INTEGER NOT NULL,
    package   TEXT NOT NULL,                      -- CodeSha256
    document  TEXT NOT NULL,
    PRIMARY KEY (name, number)
) WITHOUT ROWID;

-- Event source mappings. They name functions without a foreign key: on AWS a mapping outlives its function.

CREATE TABLE event_source_mappings (
    id         TEXT PRIMARY KEY,
    source     TEXT NOT NULL,
    function   TEXT NOT NULL,
    unsettled  INTEGER NOT NULL,                  -- 1 while a change is still to be carried out
    document   TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX event_source_mappings_unsettled ON event_source_mappings (unsettled) WHERE unsettled = 1;
CREATE INDEX event_source_mappings_by_function ON event_source_mappings (function, id);
CREATE INDEX event_source_mappings_by_source ON event_source_mappings (source, id);
