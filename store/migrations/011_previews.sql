CREATE TABLE previews (
  id TEXT PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  tenant_id TEXT NOT NULL,
  account TEXT NOT NULL,
  application TEXT NOT NULL,
  deployment TEXT NOT NULL,
  target TEXT NOT NULL,
  target_id BIGINT,
  gate TEXT NOT NULL,
  service TEXT NOT NULL,
  link TEXT,
  made_by TEXT NOT NULL,
  made_at BIGINT NOT NULL,
  until_at BIGINT NOT NULL,
  used_at BIGINT,
  revoked_at BIGINT,
  UNIQUE (target_id, gate, service)
);
CREATE INDEX previews_by_tenant ON previews (tenant_id, until_at);
CREATE INDEX previews_by_deployment ON previews (deployment);
