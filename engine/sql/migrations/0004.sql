-- Schema 3 to 4. Alerts are rows until somebody acknowledges them, and logs are watched.
--
-- Under schema 3 nobody watched a log: who does so first begins with the runs that come.

CREATE TABLE alerts (
  id       INTEGER PRIMARY KEY,
  ts       TEXT NOT NULL,
  error    INTEGER NOT NULL DEFAULT 0,
  kind     TEXT NOT NULL,
  subject  TEXT NOT NULL,
  summary  TEXT NOT NULL,
  count    INTEGER NOT NULL DEFAULT 1,
  body     TEXT,
  task_id  TEXT,
  run_id   TEXT,
  acknowledged_at  TEXT
);
CREATE INDEX unacknowledged ON alerts(id) WHERE acknowledged_at IS NULL;

CREATE TABLE deliveries (
  alert    INTEGER NOT NULL,
  target   TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at  TEXT NOT NULL,
  error    TEXT,
  PRIMARY KEY (alert, target)
) WITHOUT ROWID;
CREATE INDEX due ON deliveries(target, next_at);

CREATE TABLE watched (
  source      TEXT PRIMARY KEY NOT NULL,
  pattern     TEXT NOT NULL DEFAULT '',
  positions   TEXT NOT NULL,
  count       INTEGER NOT NULL DEFAULT 0,
  first_at    TEXT,
  last_at     TEXT,
  first_line  TEXT NOT NULL DEFAULT '',
  draft       INTEGER NOT NULL DEFAULT 0,
  quiet_until TEXT
) WITHOUT ROWID;

CREATE TABLE services (
  name           TEXT PRIMARY KEY NOT NULL,
  state          TEXT NOT NULL,
  since          TEXT NOT NULL,
  message        TEXT NOT NULL DEFAULT '',
  port           INTEGER,
  run_id         TEXT,
  pid            INTEGER,
  pid_started    TEXT,
  restarts       INTEGER NOT NULL DEFAULT 0,
  recovery       TEXT NOT NULL DEFAULT '',
  asked          TEXT,
  keeper_pid     INTEGER,
  keeper_started TEXT
) WITHOUT ROWID;

CREATE TABLE externals (
  id            TEXT PRIMARY KEY NOT NULL,
  type          TEXT NOT NULL,
  pid           INTEGER,
  pid_started   TEXT,
  tmux          TEXT,
  meta          TEXT NOT NULL DEFAULT '{}',
  registered_at TEXT NOT NULL,
  beat_at       TEXT NOT NULL
) WITHOUT ROWID;
