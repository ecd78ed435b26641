-- The disk of a server, MiB; none is not known.
ALTER TABLE servers ADD COLUMN disk BIGINT;
