CREATE INDEX applications_file ON applications (tenant_id, source, path);
ALTER TABLE sources ADD COLUMN terms TEXT NOT NULL DEFAULT '';
