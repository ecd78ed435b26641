-- Whom a row of the audit concerns, where its subject is not a person.
ALTER TABLE audit ADD COLUMN person TEXT;
UPDATE audit SET person = CAST(detail AS JSON) ->> 'person' WHERE CAST(detail AS JSON) ->> 'person' IS NOT NULL;
CREATE INDEX audit_by_person ON audit (person, id) WHERE person IS NOT NULL;
