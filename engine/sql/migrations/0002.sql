-- Schema 1 to 2. Runs that lost their task are noted until their tree is gone, purged tasks are
-- remembered while others depend on them, and a worker says whether its process is its alone.
--
-- Nothing of this could happen under schema 1: no run is ending, no task was purged, no tally
-- changes. Whether a process was a worker's own was not noted; 0 is the answer that ends nothing.
-- A process of the older release that is still at work can claim no more: the claim that it asks
-- for names the index `claimable`, which no longer answers it.

ALTER TABLE tasks ADD COLUMN ending TEXT;
ALTER TABLE workers ADD COLUMN own_process INTEGER NOT NULL DEFAULT 0;

DROP INDEX claimable;
CREATE INDEX claimable ON tasks(agent, priority DESC, position)
  WHERE state = 'READY' AND pending = 0 AND not_before IS NULL AND ending IS NULL;

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

CREATE TABLE purged (id TEXT PRIMARY KEY NOT NULL, met INTEGER NOT NULL);

DROP TRIGGER tally_insert;
DROP TRIGGER tally_delete;
DROP TRIGGER tally_update;

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
