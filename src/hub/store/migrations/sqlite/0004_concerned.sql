-- Whom a row of the audit concerns, where its subject is not a person.
ALTER TABLE audit ADD COLUMN person TEXT;
UPDATE audit SET person = json_extract(detail, '$.person') WHERE json_valid(detail) AND json_type(detail, '$.person') = 'text';
CREATE INDEX audit_by_person ON audit (person, id) WHERE person IS NOT NULL;
