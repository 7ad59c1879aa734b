-- Schema 2 to 3. Runs say what they cost, and holds say why.
--
-- Under schema 2 no run could cost anything, and only operators held claims.

ALTER TABLE runs ADD COLUMN turns INTEGER;
ALTER TABLE runs ADD COLUMN input_tokens INTEGER;
ALTER TABLE runs ADD COLUMN cached_tokens INTEGER;
ALTER TABLE runs ADD COLUMN output_tokens INTEGER;
ALTER TABLE runs ADD COLUMN cost REAL;

ALTER TABLE holds ADD COLUMN cause TEXT NOT NULL DEFAULT 'operator';
ALTER TABLE holds ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE holds ADD COLUMN until TEXT;

CREATE TABLE spent (
  agent         TEXT PRIMARY KEY NOT NULL,
  runs          INTEGER NOT NULL DEFAULT 0,
  priced        INTEGER NOT NULL DEFAULT 0,
  unpriced      INTEGER NOT NULL DEFAULT 0,
  free          INTEGER NOT NULL DEFAULT 0,
  input_tokens  INTEGER NOT NULL DEFAULT 0,
  cached_tokens INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  cost          REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
