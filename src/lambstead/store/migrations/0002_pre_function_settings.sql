-- What stands around a function: settings of the function as a whole are columns of its row; settings of one qualifier are rows by
-- (function, qualifier) and go with the function by the foreign key, with their version or alias by the statements that delete those.
-- A qualifier is a version or an alias; '' is the function itself where that is something else than $LATEST.

ALTER TABLE functions ADD COLUMN reserved_concurrency INTEGER;              -- NULL: takes part in the unreserved concurrency
ALTER TABLE functions ADD COLUMN recursive_loop TEXT;                       -- NULL: AWS's default
ALTER TABLE functions ADD COLUMN code_signing_config TEXT REFERENCES code_signing_configs (id);

CREATE TABLE code_signing_configs (
    id        TEXT PRIMARY KEY,
    document  TEXT NOT NULL
) WITHOUT ROWID;

-- For the sum of all reservations, which the invoke path asks for after every change.
CREATE INDEX functions_with_reservation ON functions (name, reserved_concurrency) WHERE reserved_concurrency IS NOT NULL;
CREATE INDEX functions_by_code_signing_config ON functions (code_signing_config, name) WHERE code_signing_config IS NOT NULL;

CREATE TABLE policies (
    function   TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    qualifier  TEXT NOT NULL,                     -- '' for the unqualified function
    document   TEXT NOT NULL,
    PRIMARY KEY (function, qualifier)
) WITHOUT ROWID;

CREATE TABLE event_invoke_configs (
    function   TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    qualifier  TEXT NOT NULL,                     -- '$LATEST' for the unqualified function
    document   TEXT NOT NULL,
    PRIMARY KEY (function, qualifier)
) WITHOUT ROWID;

CREATE TABLE provisioned_concurrency (
    function   TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    qualifier  TEXT NOT NULL,                     -- a number or an alias
    requested  INTEGER NOT NULL,                  -- for sums over a function and over the account
    document   TEXT NOT NULL,
    PRIMARY KEY (function, qualifier)
) WITHOUT ROWID;

CREATE TABLE function_urls (
    function   TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    qualifier  TEXT NOT NULL,                     -- '' for the unqualified function, else an alias
    url_id     TEXT NOT NULL UNIQUE,              -- by which a request to the URL finds its function
    document   TEXT NOT NULL,
    PRIMARY KEY (function, qualifier)
) WITHOUT ROWID;

CREATE TABLE runtime_management_configs (
    function   TEXT NOT NULL REFERENCES functions (name) ON DELETE CASCADE,
    qualifier  TEXT NOT NULL,                     -- a version
    document   TEXT NOT NULL,
    PRIMARY KEY (function, qualifier)
) WITHOUT ROWID;
