CREATE TABLE calls (
  id TEXT PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  target_id BIGINT NOT NULL,
  gate TEXT NOT NULL,
  name TEXT NOT NULL,
  run INTEGER NOT NULL,
  try INTEGER NOT NULL,
  data TEXT NOT NULL,
  answer TEXT,
  callback TEXT,
  UNIQUE (target_id, gate, name, run)
);
