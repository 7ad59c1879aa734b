-- Schema 3 to 4. Alerts are rows until somebody acknowledges them, logs are watched, and what
-- ever happened is counted.
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
  tmux_id       TEXT,
  tmux_pid      INTEGER,
  tmux_started  TEXT,
  meta          TEXT NOT NULL DEFAULT '{}',
  registered_at TEXT NOT NULL,
  beat_at       TEXT NOT NULL
) WITHOUT ROWID;

ALTER TABLE pace ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;

CREATE TABLE spent_before (
  agent         TEXT PRIMARY KEY NOT NULL,
  input_tokens  INTEGER NOT NULL DEFAULT 0,
  cached_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cost          REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE counters (
  name    TEXT NOT NULL,
  agent   TEXT NOT NULL,
  outcome TEXT NOT NULL,
  bound   REAL NOT NULL,
  n       INTEGER NOT NULL,
  ms      INTEGER NOT NULL,
  PRIMARY KEY (name, agent, outcome, bound)
) WITHOUT ROWID;

-- As far as the log goes back. Failures by the minute are of interest for an hour: from now on.
INSERT INTO spent_before
WITH told AS (
  SELECT seq, run_id, agent, json_extract(data, '$.spending') AS spending FROM events
  WHERE run_id IS NOT NULL AND CASE WHEN instr(data, '"spending"') > 0 AND json_valid(data)
    THEN json_type(data, '$.spending') = 'object' END
),
latest AS (
  SELECT run_id, max(seq), agent, spending FROM told
  WHERE seq <= (SELECT max(seq) FROM events WHERE type = 'RESET') GROUP BY run_id
)
SELECT coalesce(claim.agent, latest.agent) AS whose,
  sum(coalesce(json_extract(spending, '$.inputTokens'), 0)),
  sum(coalesce(json_extract(spending, '$.cachedTokens'), 0)),
  sum(coalesce(json_extract(spending, '$.outputTokens'), 0)),
  round(sum(coalesce(json_extract(spending, '$.cost'), 0.0)), 6)
FROM latest LEFT JOIN (SELECT run_id, agent FROM events WHERE type = 'TASK_CLAIMED') AS claim
  ON claim.run_id = latest.run_id
WHERE whose IS NOT NULL GROUP BY whose;

INSERT INTO counters
WITH told AS (
  SELECT type, coalesce(agent, '') AS whose, data FROM events
  WHERE type IN ('ALERT', 'LEASE_EXPIRED', 'TASK_BLOCKED', 'TASK_CANCELLED', 'TASK_CLAIMED',
      'TASK_COMPLETED', 'TASK_FAILED', 'TASK_RELEASED')
    AND CASE WHEN json_valid(data) THEN json_extract(data, '$.adopted') IS NULL END
),
over AS (
  SELECT whose, json_extract(data, '$.outcome') AS outcome,
    coalesce(json_extract(data, '$.durationMs'), 0) AS ms, json_extract(data, '$.error') AS error,
    instr(data, '"pullRequest"') > 0 AND json_type(data, '$.result.pullRequest') NOTNULL AS pull
  FROM told WHERE type NOT IN ('ALERT', 'TASK_CLAIMED')
    AND json_extract(data, '$.outcome') IN ('blocked', 'cancelled', 'done', 'expired', 'failed',
      'killed', 'released', 'timed out')
)
SELECT 'launched' AS name, whose, '' AS outcome, 0.0 AS bound, count(*) AS n, 0 AS ms
FROM told WHERE type = 'TASK_CLAIMED' GROUP BY whose
UNION ALL
SELECT 'alerts', whose, '', 0.0, count(*), 0 FROM told WHERE type = 'ALERT' GROUP BY whose
UNION ALL
SELECT 'ended', whose, outcome, CASE WHEN ms <= 1000 THEN 1.0 WHEN ms <= 5000 THEN 5.0
  WHEN ms <= 15000 THEN 15.0 WHEN ms <= 60000 THEN 60.0 WHEN ms <= 300000 THEN 300.0
  WHEN ms <= 900000 THEN 900.0 WHEN ms <= 3600000 THEN 3600.0 ELSE 9e999 END AS bound,
  count(*), sum(ms)
FROM over GROUP BY whose, outcome, bound
UNION ALL
SELECT 'worktree_errors', whose, '', 0.0, count(*), 0 FROM over
WHERE instr(error, 'no worktree: ') = 1 GROUP BY whose
UNION ALL
SELECT 'pull_requests', whose, '', 0.0, count(*), 0 FROM over
WHERE pull AND outcome = 'done' GROUP BY whose;
