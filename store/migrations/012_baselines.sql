ALTER TABLE calls RENAME TO former_calls;
CREATE TABLE calls (
  id TEXT PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  target_id BIGINT NOT NULL,
  gate TEXT NOT NULL,
  name TEXT NOT NULL,
  run INTEGER NOT NULL,
  baseline TEXT NOT NULL,
  try INTEGER NOT NULL,
  data TEXT NOT NULL,
  answer TEXT,
  callback TEXT,
  UNIQUE (target_id, gate, name, run, baseline)
);
INSERT INTO calls (id, tenant_id, target_id, gate, name, run, baseline, try, data, answer, callback)
  SELECT id, tenant_id, target_id, gate, name, run, '', try, data, answer, callback FROM former_calls;
DROP TABLE former_calls;
CREATE TABLE judged (
  lane_id BIGINT NOT NULL,
  analysis TEXT NOT NULL,
  deployments INTEGER NOT NULL,
  PRIMARY KEY (lane_id, analysis)
);
