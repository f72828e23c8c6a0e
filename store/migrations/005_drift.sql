ALTER TABLE lanes ADD COLUMN heal INTEGER NOT NULL DEFAULT 0;
CREATE TABLE drift (
  lane_id BIGINT NOT NULL,
  api_group TEXT NOT NULL,
  kind TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  since_at BIGINT NOT NULL,
  data TEXT NOT NULL,
  PRIMARY KEY (lane_id, api_group, kind, namespace, name)
);
