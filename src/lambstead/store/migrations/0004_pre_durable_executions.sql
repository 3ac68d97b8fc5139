-- Durable executions. A row of the first table is rewritten at every checkpoint; operations are rewritten when they change, events never.
-- Functions are named without a foreign key: an execution is readable after its function was deleted.

CREATE TABLE durable_executions (
    id            TEXT PRIMARY KEY,               -- begins with its time of start, so new rows lie together
    function      TEXT NOT NULL,
    version       TEXT NOT NULL,
    name          TEXT NOT NULL,
    status        TEXT NOT NULL,
    started_at    INTEGER NOT NULL,               -- epoch milliseconds, as all times here
    ended_at      INTEGER,
    wake_at       INTEGER,                        -- when something happens by itself: a timer, a timeout, an invocation; NULL once closed
    live          INTEGER NOT NULL,               -- 1 while an invocation runs
    expires_at    INTEGER,                        -- from when on the execution is gone; NULL until closed
    kms_key_arn   TEXT,
    input_digest  TEXT NOT NULL,
    document      TEXT NOT NULL                   -- last, and it may be large: lists do not read as far
);

-- A name is taken as long as its execution is kept.
CREATE UNIQUE INDEX durable_executions_by_name ON durable_executions (function, name);
-- Lists are merged from one look per status, which spares an index over all of them.
CREATE INDEX durable_executions_by_status ON durable_executions (function, status, started_at, id);
-- A server that starts looks at these three, however many executions sleep.
CREATE INDEX durable_executions_wake ON durable_executions (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX durable_executions_live ON durable_executions (live) WHERE live = 1;
CREATE INDEX durable_executions_expiry ON durable_executions (expires_at) WHERE expires_at IS NOT NULL;

-- The input is kept apart so that a checkpoint does not write it again.
CREATE TABLE durable_inputs (
    execution  TEXT PRIMARY KEY,
    payload    TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE durable_operations (
    execution  TEXT NOT NULL,
    sequence   INTEGER NOT NULL,
    document   TEXT NOT NULL,
    PRIMARY KEY (execution, sequence)
) WITHOUT ROWID;

CREATE TABLE durable_events (
    execution  TEXT NOT NULL,
    number     INTEGER NOT NULL,
    document   TEXT NOT NULL,
    PRIMARY KEY (execution, number)
) WITHOUT ROWID;

-- What is still to be done for CHAINED_INVOKE operations: see core.durable.records.Errand.
CREATE TABLE durable_errands (
    execution  TEXT NOT NULL,
    operation  TEXT NOT NULL,
    child      TEXT,
    refusals   INTEGER NOT NULL,
    due        INTEGER NOT NULL,
    PRIMARY KEY (execution, operation)
) WITHOUT ROWID;

CREATE INDEX durable_errands_due ON durable_errands (due);

-- How many executions there are by status: counting a million rows takes too long.
CREATE TABLE durable_totals (
    status      TEXT PRIMARY KEY,
    executions  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER durable_totals_started AFTER INSERT ON durable_executions BEGIN
    INSERT INTO durable_totals VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET executions = executions + 1;
END;

CREATE TRIGGER durable_totals_changed AFTER UPDATE OF status ON durable_executions WHEN OLD.status <> NEW.status BEGIN
    UPDATE durable_totals SET executions = executions - 1 WHERE status = OLD.status;
    INSERT INTO durable_totals VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET executions = executions + 1;
END;

CREATE TRIGGER durable_totals_gone AFTER DELETE ON durable_executions BEGIN
    UPDATE durable_totals SET executions = executions - 1 WHERE status = OLD.status;
END;
