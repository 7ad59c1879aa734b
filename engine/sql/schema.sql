-- The whole schema. Public names, for people who query the store with SQL: tasks, runs, workers, events.
-- Times are UTC ISO 8601 text with milliseconds and Z: they sort and compare as text.

CREATE TABLE tasks (
  id          TEXT PRIMARY KEY NOT NULL,
  name        TEXT NOT NULL,
  agent       TEXT NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('READY','CLAIMED','RUNNING','DONE','FAILED','BLOCKED','CANCELLED')),
  reasons     TEXT NOT NULL DEFAULT '[]',     -- JSON array, a set: upstream, human, removed
  attempts    INTEGER NOT NULL DEFAULT 0,     -- runs that count, since creation or the last retry by hand
  lost        INTEGER NOT NULL DEFAULT 0,     -- runs lost in a row
  pending     INTEGER NOT NULL DEFAULT 0,     -- deps that are not DONE
  broken      INTEGER NOT NULL DEFAULT 0,     -- deps that are FAILED, CANCELLED, BLOCKED or were purged unfinished
  removed     INTEGER NOT NULL DEFAULT 0,     -- 1: not in the DAG file that was seeded last
  not_before  TEXT,                           -- in backoff until then; cleared when it is over
  run_id      TEXT,                           -- the run that holds the task now
  claimed_by  TEXT,
  lease_until TEXT,
  timeout_at  TEXT,
  asked       TEXT,                           -- release: the holder shall let go; expire: its run is being ended
  ending      TEXT,                           -- the former run, while its tree may still live: not claimable until it is gone
  error       TEXT,
  created_at  TEXT NOT NULL,
  updated_at  TEXT NOT NULL,
  position    INTEGER NOT NULL,               -- order in the file
  priority    INTEGER NOT NULL DEFAULT 0,
  timeout     REAL NOT NULL DEFAULT 3600,     -- seconds for one run
  retries     INTEGER NOT NULL DEFAULT 0,
  deps        TEXT NOT NULL DEFAULT '[]',     -- JSON array of ids
  payload     TEXT NOT NULL DEFAULT '{}'      -- JSON object
);

-- What a worker may take, in the order in which it takes it: a claim is one step down this index.
CREATE INDEX claimable ON tasks(agent, priority DESC, position)
  WHERE state = 'READY' AND pending = 0 AND not_before IS NULL AND ending IS NULL;
CREATE INDEX in_backoff ON tasks(not_before) WHERE not_before IS NOT NULL;
CREATE INDEX held ON tasks(agent) WHERE state IN ('CLAIMED', 'RUNNING');
CREATE INDEX needs_human ON tasks(updated_at) WHERE state = 'BLOCKED' AND instr(reasons, 'human') > 0;
-- The order of the screen: what runs, what is stuck, what comes next, what is over.
CREATE INDEX on_screen ON tasks(
  (CASE state WHEN 'RUNNING' THEN 0 WHEN 'CLAIMED' THEN 0 WHEN 'BLOCKED' THEN 1 WHEN 'FAILED' THEN 2
              WHEN 'READY' THEN CASE WHEN pending = 0 THEN 3 ELSE 4 END WHEN 'DONE' THEN 5 ELSE 6 END),
  position);
CREATE INDEX in_file ON tasks(position);

-- The other direction of tasks.deps, for "who waits for this one".
CREATE TABLE edges (
  dep  TEXT NOT NULL,
  task TEXT NOT NULL,
  PRIMARY KEY (dep, task)
) WITHOUT ROWID;

CREATE TABLE runs (
  n           INTEGER PRIMARY KEY,
  id          TEXT NOT NULL UNIQUE,
  task_id     TEXT NOT NULL,
  agent       TEXT NOT NULL,
  worker_id   TEXT NOT NULL,
  attempt     INTEGER NOT NULL,
  outcome     TEXT,                           -- NULL while it goes on
  claimed_at  TEXT NOT NULL,
  started_at  TEXT,
  ended_at    TEXT,
  exit_code   INTEGER,
  error       TEXT,
  result      TEXT,                           -- JSON object
  host_pid     INTEGER NOT NULL,              -- the process of the worker
  host_started TEXT NOT NULL,                 -- a pid alone is reused; with its start it is not
  pid          INTEGER,                       -- the process that leads the run's tree
  pid_started  TEXT,
  turns         INTEGER,                      -- of its agent, as far as that tells
  input_tokens  INTEGER,                      -- all that were read
  cached_tokens INTEGER,                      -- those of them that came from a cache
  output_tokens INTEGER,
  cost          REAL                          -- US dollars
);
CREATE INDEX runs_of_task ON runs(task_id, n);

-- Runs that lost their task (cancelled, killed, timed out) while their tree may still live. Whoever
-- has seen the tree gone takes the row away: the host of the run, or a reaper if the host is silent.
-- Complete in itself: the task and its run may be purged meanwhile.
CREATE TABLE endings (
  run_id       TEXT PRIMARY KEY NOT NULL,
  task_id      TEXT NOT NULL,
  agent        TEXT NOT NULL,
  worker_id    TEXT NOT NULL,
  since        TEXT NOT NULL,
  host_pid     INTEGER NOT NULL,
  host_started TEXT NOT NULL,
  pid          INTEGER,
  pid_started  TEXT
);

-- Tasks that are gone while others depend on them: a dep that was DONE counts as met, any other as broken.
CREATE TABLE purged (id TEXT PRIMARY KEY NOT NULL, met INTEGER NOT NULL);

CREATE TABLE workers (
  id          TEXT PRIMARY KEY NOT NULL,
  agent       TEXT NOT NULL,
  pid         INTEGER NOT NULL,               -- of its host
  pid_started TEXT NOT NULL,
  own_process INTEGER NOT NULL DEFAULT 0,     -- 1: its host is its alone, and may be ended with it
  status      TEXT NOT NULL CHECK (status IN ('live','stopping','stopped','lost','killed')),
  started_at  TEXT NOT NULL,
  beat_at     TEXT NOT NULL,
  note        TEXT NOT NULL DEFAULT ''
);

CREATE TABLE events (
  seq       INTEGER PRIMARY KEY,
  ts        TEXT NOT NULL,
  type      TEXT NOT NULL,
  agent     TEXT,
  worker_id TEXT,
  task_id   TEXT,
  run_id    TEXT,
  state     TEXT,                             -- the state that the event left the task in
  data      TEXT NOT NULL DEFAULT '{}'        -- JSON object: what only this type carries
);
CREATE INDEX events_of_task ON events(task_id, seq) WHERE task_id IS NOT NULL;

-- An event as its line of events.jsonl. Built here, so that the mirror costs Python nothing.
CREATE VIEW event_lines(seq, line) AS
SELECT seq,
  '{"seq":' || seq || ',"ts":"' || ts || '","type":"' || type || '"'
  || CASE WHEN agent IS NULL THEN '' ELSE ',"agent":' || json_quote(agent) END
  || CASE WHEN worker_id IS NULL THEN '' ELSE ',"workerId":' || json_quote(worker_id) END
  || CASE WHEN task_id IS NULL THEN '' ELSE ',"taskId":' || json_quote(task_id) END
  || CASE WHEN run_id IS NULL THEN '' ELSE ',"runId":' || json_quote(run_id) END
  || CASE WHEN state IS NULL THEN '' ELSE ',"state":"' || state || '"' END
  || CASE WHEN data = '{}' THEN '' ELSE ',' || substr(data, 2, length(data) - 2) END
  || '}'
FROM events;

CREATE TABLE holds (
  agent  TEXT PRIMARY KEY NOT NULL,           -- *: of all agents
  since  TEXT NOT NULL,
  cause  TEXT NOT NULL DEFAULT 'operator',    -- operator, login, limit, budget
  reason TEXT NOT NULL DEFAULT '',            -- in words
  until  TEXT                                 -- lifted by itself then; NULL: never
);
-- What the runs of each agent have taken since the last reset, purged ones included.
CREATE TABLE spent (
  agent         TEXT PRIMARY KEY NOT NULL,
  runs          INTEGER NOT NULL DEFAULT 0,   -- that told their end, and were not put back
  priced        INTEGER NOT NULL DEFAULT 0,   -- that told a cost, over or not
  unpriced      INTEGER NOT NULL DEFAULT 0,   -- that told tokens, but no cost of them
  free          INTEGER NOT NULL DEFAULT 0,   -- that told tokens, and that they cost nothing
  input_tokens  INTEGER NOT NULL DEFAULT 0,
  cached_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cost          REAL NOT NULL DEFAULT 0       -- US dollars
) WITHOUT ROWID;
-- And what they had taken before that reset.
CREATE TABLE spent_before (
  agent         TEXT PRIMARY KEY NOT NULL,
  input_tokens  INTEGER NOT NULL DEFAULT 0,
  cached_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cost          REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE agents (
  name       TEXT PRIMARY KEY NOT NULL,
  run_limit  INTEGER,                         -- runs at once; NULL: no limit
  stagger    REAL NOT NULL DEFAULT 0,         -- seconds between two starts
  last_start TEXT
);
CREATE TABLE meta (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);

-- Runs that ended well, and badly, in each minute (ISO text up to the minute), for rate and health.
CREATE TABLE pace (
  minute TEXT PRIMARY KEY NOT NULL,
  done   INTEGER NOT NULL,
  failed INTEGER NOT NULL DEFAULT 0           -- failed or timed out
) WITHOUT ROWID;

-- What ever happened, by agent (empty: of none). Follows from the events, and never falls.
CREATE TABLE counters (
  name    TEXT NOT NULL,                      -- launched, ended, worktree_errors, pull_requests, alerts
  agent   TEXT NOT NULL,
  outcome TEXT NOT NULL,                      -- of runs that ended; else empty
  bound   REAL NOT NULL,                      -- they took at most so many seconds, and more than the bound before; else 0
  n       INTEGER NOT NULL,
  ms      INTEGER NOT NULL,                   -- that they took together; else 0
  PRIMARY KEY (name, agent, outcome, bound)
) WITHOUT ROWID;

-- What was noticed and is shown until somebody acknowledges it. Each is told by an ALERT event, too.
CREATE TABLE alerts (
  id       INTEGER PRIMARY KEY,
  ts       TEXT NOT NULL,
  error    INTEGER NOT NULL DEFAULT 0,        -- 1: something is wrong, and not only worth a look
  kind     TEXT NOT NULL,                     -- log, delivery, ...
  subject  TEXT NOT NULL,                     -- what it is about, as people name it
  summary  TEXT NOT NULL,                     -- one line
  count    INTEGER NOT NULL DEFAULT 1,        -- of what was noticed at once
  body     TEXT,                              -- a Markdown file, from the state folder on
  task_id  TEXT,
  run_id   TEXT,
  acknowledged_at  TEXT                               -- NULL: nobody has yet
);
CREATE INDEX unacknowledged ON alerts(id) WHERE acknowledged_at IS NULL;

-- Where alerts still have to go: mailbox, webhook, command.
CREATE TABLE deliveries (
  alert    INTEGER NOT NULL,
  target   TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,        -- that failed
  next_at  TEXT NOT NULL,
  error    TEXT,                              -- of the last one
  PRIMARY KEY (alert, target)
) WITHOUT ROWID;
CREATE INDEX due ON deliveries(target, next_at);

-- How far each log was read, and what was found in it that no alert has told of yet.
CREATE TABLE watched (
  source      TEXT PRIMARY KEY NOT NULL,      -- file:<path>, run:<id> or own
  pattern     TEXT NOT NULL DEFAULT '',       -- of the settings, that names the file
  positions   TEXT NOT NULL,                  -- JSON array, rotated files first
  count       INTEGER NOT NULL DEFAULT 0,     -- lines
  first_at    TEXT,
  last_at     TEXT,
  first_line  TEXT NOT NULL DEFAULT '',
  draft       INTEGER NOT NULL DEFAULT 0,     -- bytes of the next alert's body that are good
  quiet_until TEXT                            -- until then lines are only counted
) WITHOUT ROWID;

-- Programs that run beside the tasks, as the process that keeps them sees them.
CREATE TABLE services (
  name           TEXT PRIMARY KEY NOT NULL,
  state          TEXT NOT NULL,
  since          TEXT NOT NULL,
  message        TEXT NOT NULL DEFAULT '',
  port           INTEGER,
  run_id         TEXT,                        -- in the tag of its processes
  pid            INTEGER,                     -- the process that leads them
  pid_started    TEXT,
  restarts       INTEGER NOT NULL DEFAULT 0,  -- since an operator started it
  recovery       TEXT NOT NULL DEFAULT '',    -- in progress, complete, failed
  asked          TEXT,                        -- start, stop, restart: what an operator wants
  keeper_pid     INTEGER,
  keeper_started TEXT
) WITHOUT ROWID;

-- Agents that somebody else has started, and told of.
CREATE TABLE externals (
  id            TEXT PRIMARY KEY NOT NULL,
  type          TEXT NOT NULL,
  pid           INTEGER,
  pid_started   TEXT,
  tmux          TEXT,                         -- session:window, as somebody called it,
  tmux_id       TEXT,                         -- as its server does,
  tmux_pid      INTEGER,                      -- and that server
  tmux_started  TEXT,
  meta          TEXT NOT NULL DEFAULT '{}',   -- JSON object of texts
  registered_at TEXT NOT NULL,
  beat_at       TEXT NOT NULL
) WITHOUT ROWID;

-- Counts by agent and state, kept exact by triggers whoever writes: counting a million rows for
-- every repaint would cost more than all else on the screen. waiting = READY, but not claimable.
CREATE TABLE tallies (
  agent   TEXT NOT NULL,
  state   TEXT NOT NULL,
  waiting INTEGER NOT NULL,
  n       INTEGER NOT NULL,
  PRIMARY KEY (agent, state, waiting)
) WITHOUT ROWID;

CREATE TRIGGER tally_insert AFTER INSERT ON tasks BEGIN
  INSERT INTO tallies VALUES (new.agent, new.state, new.state = 'READY' AND (new.pending > 0 OR new.not_before IS NOT NULL OR new.ending IS NOT NULL), 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER tally_delete AFTER DELETE ON tasks BEGIN
  UPDATE tallies SET n = n - 1 WHERE agent = old.agent AND state = old.state
    AND waiting = (old.state = 'READY' AND (old.pending > 0 OR old.not_before IS NOT NULL OR old.ending IS NOT NULL));
END;
CREATE TRIGGER tally_update AFTER UPDATE OF agent, state, pending, not_before, ending ON tasks
WHEN old.agent <> new.agent OR old.state <> new.state
  OR (old.pending > 0 OR old.not_before IS NOT NULL OR old.ending IS NOT NULL) <> (new.pending > 0 OR new.not_before IS NOT NULL OR new.ending IS NOT NULL)
BEGIN
  UPDATE tallies SET n = n - 1 WHERE agent = old.agent AND state = old.state
    AND waiting = (old.state = 'READY' AND (old.pending > 0 OR old.not_before IS NOT NULL OR old.ending IS NOT NULL));
  INSERT INTO tallies VALUES (new.agent, new.state, new.state = 'READY' AND (new.pending > 0 OR new.not_before IS NOT NULL OR new.ending IS NOT NULL), 1)
    ON CONFLICT DO UPDATE SET n = n + 1;
END;
