-- Custom attributes of durable executions, search over all of them, and who hears of changes of their status.

CREATE TABLE durable_attributes (
    execution  TEXT NOT NULL,
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (execution, name)
) WITHOUT ROWID;

CREATE INDEX durable_attributes_by_value ON durable_attributes (name, value, execution);

-- A search over all functions is merged from one look per status, as the list of one function is.
CREATE INDEX durable_executions_by_status_of_all ON durable_executions (status, started_at, id);

CREATE TABLE durable_subscriptions (
    id        TEXT PRIMARY KEY,
    document  TEXT NOT NULL
) WITHOUT ROWID;

-- What subscribers are still to be told: written in the transaction of the change, removed once it was taken.
CREATE TABLE durable_notices (
    number        INTEGER PRIMARY KEY,
    subscription  TEXT NOT NULL REFERENCES durable_subscriptions (id) ON DELETE CASCADE,
    due           INTEGER NOT NULL,               -- epoch milliseconds
    document      TEXT NOT NULL
);

CREATE INDEX durable_notices_due ON durable_notices (due);
CREATE INDEX durable_notices_by_subscription ON durable_notices (subscription);
