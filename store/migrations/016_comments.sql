CREATE TABLE comments (
  source TEXT NOT NULL,
  comment_id BIGINT NOT NULL,
  subject TEXT NOT NULL,
  body_sum TEXT NOT NULL,
  heard_at BIGINT NOT NULL,
  next_at BIGINT NOT NULL,
  tries INTEGER NOT NULL,
  claimed_until BIGINT NOT NULL,
  answered INTEGER NOT NULL,
  reply TEXT NOT NULL,
  PRIMARY KEY (source, comment_id)
);
CREATE INDEX comments_subject ON comments (subject, comment_id);
CREATE INDEX comments_open ON comments (next_at) WHERE answered = 0;
CREATE TABLE said (
  key TEXT PRIMARY KEY,
  at BIGINT NOT NULL
);
ALTER TABLE proposals ADD COLUMN named TEXT NOT NULL DEFAULT '';
