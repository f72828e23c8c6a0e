CREATE TABLE replicas (
  id TEXT PRIMARY KEY,
  address TEXT NOT NULL,
  beat_at BIGINT NOT NULL
);
CREATE TABLE agent_sessions (
  id TEXT PRIMARY KEY,
  replica TEXT NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
  tenant_id TEXT NOT NULL,
  agent TEXT NOT NULL,
  instance TEXT NOT NULL,
  version TEXT NOT NULL,
  remote TEXT NOT NULL,
  targets TEXT NOT NULL,
  since BIGINT NOT NULL,
  admitted INTEGER NOT NULL
);
CREATE INDEX agent_sessions_of ON agent_sessions (tenant_id, agent);
