-- Documents are JSON of the domain's frozen data; the columns beside them exist for keys, order and selection only.

CREATE TABLE functions (
    name         TEXT PRIMARY KEY,
    last_number  INTEGER NOT NULL DEFAULT 0      -- highest version number ever given out
) WITHOUT ROWID;

CREATE TABLE versions (
    function   TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    ordinal    INTEGER NOT NULL,                 -- -1 $LATEST, 0 $LATEST.PUBLISHED, else the number: the order of lists
    version    TEXT NOT NULL,
    unsettled  INTEGER NOT NULL,                 -- 1 while a change is still to be carried out
    provider   TEXT,                             -- capacity provider, if any
    package    TEXT NOT NULL,                    -- CodeSha256
    document   TEXT NOT NULL,
    PRIMARY KEY (function, ordinal)
) WITHOUT ROWID;

CREATE INDEX versions_unsettled ON versions (unsettled) WHERE unsettled = 1;
CREATE INDEX versions_on_provider ON versions (provider, function, ordinal) WHERE provider IS NOT NULL;

CREATE TABLE aliases (
    function  TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    name      TEXT NOT NULL,
    document  TEXT NOT NULL,
    PRIMARY KEY (function, name)
) WITHOUT ROWID;

CREATE TABLE capacity_providers (
    name      TEXT PRIMARY KEY,
    state     TEXT NOT NULL,
    document  TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE tags (
    resource  TEXT NOT NULL,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (resource, key)
) WITHOUT ROWID;
