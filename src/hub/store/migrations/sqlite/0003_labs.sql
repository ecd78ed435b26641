-- Labs that servers keep for people between their slots, as the servers' agents told.
CREATE TABLE labs (
    person TEXT NOT NULL REFERENCES people (id),
    server TEXT NOT NULL REFERENCES servers (id),
    name TEXT NOT NULL,
    layout TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (person, server)
) STRICT;
