-- Schedules of EventBridge Scheduler's API, and invocations of their targets that could not be delivered yet.

CREATE TABLE schedule_groups (
    name      TEXT PRIMARY KEY,
    document  TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE schedules (
    group_name  TEXT NOT NULL REFERENCES schedule_groups (name) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    state       TEXT NOT NULL,
    due         INTEGER,                          -- epoch milliseconds; NULL: disabled, or nothing is to come
    document    TEXT NOT NULL,
    PRIMARY KEY (group_name, name)
) WITHOUT ROWID;

-- The loop reads what is due first; schedules that wait for years cost it nothing.
CREATE INDEX schedules_due ON schedules (due, group_name, name) WHERE due IS NOT NULL;

CREATE TABLE schedule_invocations (
    id        TEXT PRIMARY KEY,
    due       INTEGER NOT NULL,                   -- for a taken row: when its taker's word for it expires
    owner     TEXT,                               -- the server run that has it; NULL while it waits
    document  TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX schedule_invocations_due ON schedule_invocations (due);

-- Requests that were carried out, by their ClientToken: a client that did not hear the answer may send them again.
CREATE TABLE schedule_requests (
    operation    TEXT NOT NULL,
    resource     TEXT NOT NULL,                   -- ARN
    token        TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,                   -- of the parameters
    until        INTEGER NOT NULL,                -- epoch milliseconds; forgotten then
    PRIMARY KEY (resource, operation, token)
) WITHOUT ROWID;

CREATE INDEX schedule_requests_until ON schedule_requests (until);

-- The group that every account has.
INSERT INTO schedule_groups (name, document)
SELECT 'default', json_object('name', 'default', 'created_at', stamp, 'modified_at', stamp)
FROM (SELECT strftime('%Y-%m-%dT%H:%M:%SZ', 'now') AS stamp);
