CREATE TABLE words (
  id {{serial}},
  tenant_id TEXT NOT NULL,
  deployment_id TEXT NOT NULL,
  target TEXT NOT NULL,
  gate TEXT NOT NULL,
  digest TEXT NOT NULL,
  verb TEXT NOT NULL,
  who TEXT NOT NULL,
  reason TEXT NOT NULL,
  at BIGINT NOT NULL
);
CREATE INDEX words_deployment ON words (deployment_id, id);
INSERT INTO words (tenant_id, deployment_id, target, gate, digest, verb, who, reason, at)
  SELECT tenant_id, deployment_id, target, gate, digest, 'approve', who, comment, at FROM approvals;
DROP TABLE approvals;
CREATE TABLE holds (
  tenant_id TEXT NOT NULL,
  scope TEXT NOT NULL,
  name TEXT NOT NULL,
  who TEXT NOT NULL,
  reason TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, scope, name)
);
ALTER TABLE lanes ADD COLUMN replaced INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lanes ADD COLUMN pin TEXT;
ALTER TABLE waits ADD COLUMN gate TEXT NOT NULL DEFAULT '';
ALTER TABLE deployments ADD COLUMN queued TEXT;
CREATE INDEX deployments_queued ON deployments (tenant_id, application) WHERE queued IS NOT NULL;
