CREATE TABLE clusters (
  tenant_id TEXT NOT NULL,
  account TEXT NOT NULL,
  version TEXT NOT NULL,
  apis TEXT NOT NULL,
  seen_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, account)
);
