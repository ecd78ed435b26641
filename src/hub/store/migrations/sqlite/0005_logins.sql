-- Whether a server's agent makes labs, 1 or 0; none is not known.
ALTER TABLE servers ADD COLUMN makes_labs INTEGER;
