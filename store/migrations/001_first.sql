CREATE TABLE sealed (
  digest TEXT PRIMARY KEY,
  content {{bytes}} NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE TABLE sources (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  head TEXT NOT NULL DEFAULT '',
  processed TEXT NOT NULL DEFAULT '',
  seen_at BIGINT,
  failed_since BIGINT,
  failure TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (tenant_id, name)
);
CREATE TABLE files (
  tenant_id TEXT NOT NULL,
  source TEXT NOT NULL,
  path TEXT NOT NULL,
  application TEXT NOT NULL,
  digest TEXT NOT NULL,
  commit_id TEXT NOT NULL,
  problems TEXT NOT NULL,
  prune INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, source, path)
);
CREATE INDEX files_commit ON files (source, commit_id);
CREATE TABLE renders (
  tenant_id TEXT NOT NULL,
  source TEXT NOT NULL,
  path TEXT NOT NULL,
  target TEXT NOT NULL,
  manifests TEXT NOT NULL,
  trace {{bytes}} NOT NULL,
  problems TEXT NOT NULL,
  PRIMARY KEY (tenant_id, source, path, target)
);
CREATE TABLE applications (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  source TEXT NOT NULL,
  path TEXT NOT NULL,
  number BIGINT NOT NULL,
  removed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, name)
);
CREATE TABLE deployments (
  id TEXT PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  application TEXT NOT NULL,
  number BIGINT NOT NULL,
  source TEXT NOT NULL,
  path TEXT NOT NULL,
  commit_id TEXT NOT NULL,
  upload TEXT NOT NULL,
  repeats TEXT NOT NULL,
  trigger_kind TEXT NOT NULL,
  trigger_by TEXT NOT NULL,
  reason TEXT NOT NULL,
  title TEXT NOT NULL,
  description TEXT NOT NULL,
  context TEXT NOT NULL,
  file TEXT NOT NULL,
  state TEXT NOT NULL,
  why TEXT NOT NULL,
  cancel TEXT,
  created_at BIGINT NOT NULL,
  started_at BIGINT,
  ended_at BIGINT,
  UNIQUE (tenant_id, application, number)
);
CREATE INDEX deployments_newest ON deployments (tenant_id, created_at, id);
CREATE INDEX deployments_commit ON deployments (source, commit_id);
CREATE INDEX deployments_under_way ON deployments (tenant_id, application, ended_at);
CREATE TABLE lanes (
  id BIGINT PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  application TEXT NOT NULL,
  target TEXT NOT NULL,
  account TEXT NOT NULL,
  current_target BIGINT,
  next_target BIGINT,
  wanted_target BIGINT,
  wanted TEXT NOT NULL DEFAULT '',
  promise TEXT NOT NULL DEFAULT '',
  good TEXT,
  removed INTEGER NOT NULL DEFAULT 0,
  wake_seq BIGINT NOT NULL DEFAULT 0,
  lease_epoch BIGINT NOT NULL DEFAULT 0,
  lease_until BIGINT NOT NULL DEFAULT 0,
  due_at BIGINT,
  UNIQUE (tenant_id, application, target, account)
);
CREATE INDEX lanes_due ON lanes (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX lanes_current ON lanes (current_target) WHERE current_target IS NOT NULL;
CREATE TABLE targets (
  id BIGINT PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  deployment_id TEXT NOT NULL REFERENCES deployments (id),
  lane_id BIGINT NOT NULL REFERENCES lanes (id),
  ord INTEGER NOT NULL,
  name TEXT NOT NULL,
  state TEXT NOT NULL,
  phase TEXT NOT NULL,
  depends INTEGER NOT NULL,
  data TEXT NOT NULL,
  carried_by BIGINT,
  replaced_by BIGINT
);
CREATE INDEX targets_deployment ON targets (deployment_id);
CREATE INDEX targets_lane ON targets (lane_id, id);
CREATE INDEX targets_carried ON targets (carried_by) WHERE carried_by IS NOT NULL;
CREATE INDEX targets_replaced ON targets (replaced_by) WHERE replaced_by IS NOT NULL;
CREATE TABLE waits (
  target_id BIGINT NOT NULL,
  ord INTEGER NOT NULL,
  tenant_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  since_at BIGINT NOT NULL,
  until_at BIGINT,
  needs TEXT NOT NULL,
  who TEXT NOT NULL,
  command TEXT NOT NULL,
  PRIMARY KEY (target_id, ord)
);
CREATE TABLE inventory (
  tenant_id TEXT NOT NULL,
  account TEXT NOT NULL,
  api_group TEXT NOT NULL,
  kind TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  lane_id BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, account, api_group, kind, namespace, name)
);
CREATE INDEX inventory_lane ON inventory (lane_id);
CREATE TABLE approvals (
  tenant_id TEXT NOT NULL,
  deployment_id TEXT NOT NULL,
  target TEXT NOT NULL,
  gate TEXT NOT NULL,
  digest TEXT NOT NULL,
  who TEXT NOT NULL,
  comment TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (deployment_id, target, gate, digest, who)
);
CREATE TABLE events (
  id {{serial}},
  tenant_id TEXT NOT NULL,
  application TEXT NOT NULL,
  deployment TEXT NOT NULL,
  target TEXT NOT NULL,
  at BIGINT NOT NULL,
  who TEXT NOT NULL,
  kind TEXT NOT NULL,
  what TEXT NOT NULL,
  why TEXT NOT NULL,
  hash TEXT NOT NULL
);
CREATE INDEX events_application ON events (tenant_id, application, id);
CREATE INDEX events_deployment ON events (deployment, id);
CREATE TABLE outbox (
  subject TEXT PRIMARY KEY,
  source TEXT NOT NULL,
  dirty_seq BIGINT NOT NULL,
  sent_seq BIGINT NOT NULL,
  next_at BIGINT NOT NULL,
  claimed_until BIGINT NOT NULL,
  unsure INTEGER NOT NULL,
  tries INTEGER NOT NULL,
  failure TEXT NOT NULL,
  parked INTEGER NOT NULL
);
CREATE INDEX outbox_due ON outbox (source, next_at, claimed_until) WHERE dirty_seq > sent_seq AND parked = 0;
CREATE TABLE published (
  subject TEXT NOT NULL,
  object TEXT NOT NULL,
  hash TEXT NOT NULL,
  final INTEGER NOT NULL,
  at BIGINT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (subject, object)
);
CREATE TABLE sends (
  source TEXT NOT NULL,
  at BIGINT NOT NULL
);
CREATE INDEX sends_at ON sends (source, at);
CREATE TABLE deliveries (
  source TEXT NOT NULL,
  guid TEXT NOT NULL,
  event TEXT NOT NULL,
  body {{bytes}} NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (source, guid)
);
CREATE TABLE tokens (
  hash TEXT PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  grants TEXT NOT NULL,
  roles TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT
);
CREATE TABLE agents (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  issuer TEXT NOT NULL,
  subject TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (issuer, subject)
);
CREATE TABLE issuer_keys (
  id TEXT PRIMARY KEY,
  private {{bytes}} NOT NULL,
  created_at BIGINT NOT NULL,
  active_at BIGINT NOT NULL,
  retires_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE TABLE issuer_clients (
  id TEXT PRIMARY KEY,
  data TEXT NOT NULL,
  version BIGINT NOT NULL
);
CREATE TABLE attempts (
  tenant_id TEXT NOT NULL,
  who TEXT NOT NULL,
  key TEXT NOT NULL,
  request TEXT NOT NULL,
  id TEXT NOT NULL,
  answer {{bytes}},
  at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, who, key)
);
CREATE INDEX attempts_at ON attempts (at);
