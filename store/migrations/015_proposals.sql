CREATE TABLE proposals (
  subject TEXT PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  source TEXT NOT NULL,
  wanted_seq BIGINT NOT NULL,
  seen_seq BIGINT NOT NULL,
  basis TEXT NOT NULL,
  state TEXT NOT NULL,
  closed INTEGER NOT NULL,
  merged TEXT NOT NULL,
  at BIGINT NOT NULL,
  report TEXT NOT NULL
);
CREATE INDEX proposals_open ON proposals (tenant_id, source) WHERE closed = 0;
CREATE INDEX proposals_merged ON proposals (source, merged) WHERE merged <> '';
ALTER TABLE published ADD COLUMN remote_id BIGINT NOT NULL DEFAULT 0;
