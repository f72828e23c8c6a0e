CREATE TABLE hook_looks (
  app TEXT PRIMARY KEY,
  began_at BIGINT NOT NULL,
  until_at BIGINT NOT NULL
);
CREATE TABLE redeliveries (
  app TEXT NOT NULL,
  guid TEXT NOT NULL,
  attempt BIGINT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (app, guid, attempt)
);
