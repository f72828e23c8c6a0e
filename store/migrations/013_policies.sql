CREATE TABLE policy_files (
  tenant_id TEXT NOT NULL,
  source TEXT NOT NULL,
  commit_id TEXT NOT NULL,
  files TEXT NOT NULL,
  digest TEXT NOT NULL,
  seen TEXT NOT NULL,
  problems TEXT NOT NULL,
  PRIMARY KEY (tenant_id, source)
);
