-- The hub's tables, first edition. Moments are seconds since 1970; documents are JSON as text.
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE TABLE courses (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    policy TEXT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE groups (
    id TEXT PRIMARY KEY,
    course TEXT NOT NULL REFERENCES courses (id)
);

CREATE TABLE people (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('student', 'teacher', 'admin')),
    active BIGINT NOT NULL DEFAULT 1,
    zone TEXT NOT NULL DEFAULT 'UTC',
    keys TEXT NOT NULL DEFAULT '[]',
    version BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE members (
    person TEXT NOT NULL REFERENCES people (id),
    grp TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (person, grp)
);

CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    course TEXT REFERENCES courses (id),
    cores BIGINT NOT NULL,
    memory BIGINT NOT NULL,
    labels TEXT NOT NULL,
    host_keys TEXT NOT NULL DEFAULT '[]',
    opening TEXT NOT NULL,
    zone TEXT NOT NULL,
    buffer BIGINT NOT NULL CHECK (buffer >= 0),
    mode TEXT NOT NULL CHECK (mode IN ('exclusive', 'shared')),
    health TEXT NOT NULL CHECK (health IN ('healthy', 'away', 'quarantined')),
    health_note TEXT,
    occupant TEXT,
    revision BIGINT NOT NULL DEFAULT 1,
    issued BIGINT NOT NULL DEFAULT 0,
    acked BIGINT NOT NULL DEFAULT 0,
    seen BIGINT,
    clock_offset BIGINT NOT NULL DEFAULT 0,
    reported BIGINT NOT NULL DEFAULT 0,
    removed BIGINT,
    version BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE maintenance (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server TEXT NOT NULL REFERENCES servers (id),
    starts BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    reason TEXT NOT NULL,
    CHECK (ends > starts)
);

CREATE TABLE bookings (
    id TEXT PRIMARY KEY,
    server TEXT REFERENCES servers (id),
    place BIGINT,
    person TEXT NOT NULL REFERENCES people (id),
    course TEXT NOT NULL REFERENCES courses (id),
    grp TEXT REFERENCES groups (id),
    layout TEXT NOT NULL,
    starts BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    busy_until BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waitlisted', 'offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting', 'done', 'cancelled', 'no-show', 'quarantined')),
    since BIGINT NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    offer_until BIGINT,
    came BIGINT,
    charged BIGINT NOT NULL,
    lapses BIGINT NOT NULL DEFAULT 0,
    series TEXT,
    wished TEXT,
    note TEXT,
    refused TEXT,
    stranded BIGINT,
    moves BIGINT NOT NULL DEFAULT 0,
    labels TEXT NOT NULL DEFAULT '[]',
    ended_by TEXT,
    CHECK (ends > starts AND busy_until >= ends),
    CHECK (state NOT IN ('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting') OR (server IS NOT NULL AND place IS NOT NULL)),
    -- Empty ranges would slip through it, therefore the check above.
    CONSTRAINT bookings_apart EXCLUDE USING gist (server WITH =, place WITH =, int8range(starts, busy_until) WITH &&)
        WHERE (state IN ('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting'))
);
CREATE INDEX bookings_by_server ON bookings (server, starts);
CREATE INDEX bookings_by_person ON bookings (person, starts);
CREATE INDEX bookings_by_group ON bookings (grp, starts);
CREATE INDEX bookings_by_state ON bookings (state, starts);

-- Windows that were given up, but whose server has not confirmed the plan without them yet.
CREATE TABLE holds (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    booking TEXT NOT NULL REFERENCES bookings (id),
    server TEXT NOT NULL REFERENCES servers (id),
    place BIGINT NOT NULL,
    layout TEXT NOT NULL,
    starts BIGINT NOT NULL,
    busy_until BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX holds_by_server ON holds (server, busy_until);

CREATE TABLE audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    moment BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT,
    version BIGINT,
    reason TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject, id);

CREATE TABLE events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    moment BIGINT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    person TEXT,
    server TEXT,
    payload TEXT NOT NULL
);

CREATE TABLE hooks (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    active BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE deliveries (
    event BIGINT NOT NULL REFERENCES events (id),
    hook BIGINT NOT NULL REFERENCES hooks (id),
    tries BIGINT NOT NULL DEFAULT 0,
    next_try BIGINT NOT NULL,
    done BIGINT,
    error TEXT,
    PRIMARY KEY (event, hook)
);
CREATE INDEX deliveries_open ON deliveries (next_try) WHERE done IS NULL;

-- API tokens, sessions, calendar feeds, agents: only what their text hashes to.
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('api', 'session', 'feed', 'agent', 'link')),
    person TEXT REFERENCES people (id),
    server TEXT REFERENCES servers (id),
    label TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    used BIGINT,
    revoked BIGINT
);
CREATE INDEX tokens_by_person ON tokens (person, kind);

CREATE TABLE challenges (
    nonce TEXT PRIMARY KEY,
    person TEXT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE failures (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    who TEXT NOT NULL,
    moment BIGINT NOT NULL
);
CREATE INDEX failures_by_who ON failures (who, moment);

CREATE TABLE answers (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer TEXT,
    moment BIGINT NOT NULL,
    PRIMARY KEY (actor, key)
);
