-- The hub's tables, first edition. Moments are seconds since 1970; documents are JSON as text.

CREATE TABLE courses (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    policy TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE groups (
    id TEXT PRIMARY KEY,
    course TEXT NOT NULL REFERENCES courses (id)
) STRICT;

CREATE TABLE people (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('student', 'teacher', 'admin')),
    active INTEGER NOT NULL DEFAULT 1,
    zone TEXT NOT NULL DEFAULT 'UTC',
    keys TEXT NOT NULL DEFAULT '[]',
    version INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE members (
    person TEXT NOT NULL REFERENCES people (id),
    grp TEXT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (person, grp)
) STRICT;

CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    course TEXT REFERENCES courses (id),
    cores INTEGER NOT NULL,
    memory INTEGER NOT NULL,
    labels TEXT NOT NULL,
    host_keys TEXT NOT NULL DEFAULT '[]',
    opening TEXT NOT NULL,
    zone TEXT NOT NULL,
    buffer INTEGER NOT NULL CHECK (buffer >= 0),
    mode TEXT NOT NULL CHECK (mode IN ('exclusive', 'shared')),
    health TEXT NOT NULL CHECK (health IN ('healthy', 'away', 'quarantined')),
    health_note TEXT,
    occupant TEXT,
    revision INTEGER NOT NULL DEFAULT 1,
    issued INTEGER NOT NULL DEFAULT 0,
    acked INTEGER NOT NULL DEFAULT 0,
    seen INTEGER,
    clock_offset INTEGER NOT NULL DEFAULT 0,
    reported INTEGER NOT NULL DEFAULT 0,
    removed INTEGER,
    version INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE maintenance (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server TEXT NOT NULL REFERENCES servers (id),
    starts INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    reason TEXT NOT NULL,
    CHECK (ends > starts)
) STRICT;

CREATE TABLE bookings (
    id TEXT PRIMARY KEY,
    server TEXT REFERENCES servers (id),
    place INTEGER,
    person TEXT NOT NULL REFERENCES people (id),
    course TEXT NOT NULL REFERENCES courses (id),
    grp TEXT REFERENCES groups (id),
    layout TEXT NOT NULL,
    starts INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    busy_until INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waitlisted', 'offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting', 'done', 'cancelled', 'no-show', 'quarantined')),
    since INTEGER NOT NULL,
    version INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    offer_until INTEGER,
    came INTEGER,
    charged INTEGER NOT NULL,
    lapses INTEGER NOT NULL DEFAULT 0,
    series TEXT,
    wished TEXT,
    note TEXT,
    refused TEXT,
    stranded INTEGER,
    moves INTEGER NOT NULL DEFAULT 0,
    labels TEXT NOT NULL DEFAULT '[]',
    ended_by TEXT,
    CHECK (ends > starts AND busy_until >= ends),
    CHECK (state NOT IN ('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting') OR (server IS NOT NULL AND place IS NOT NULL))
) STRICT;
CREATE INDEX bookings_by_server ON bookings (server, starts);
CREATE INDEX bookings_by_person ON bookings (person, starts);
CREATE INDEX bookings_by_group ON bookings (grp, starts);
CREATE INDEX bookings_by_state ON bookings (state, starts);

CREATE TRIGGER bookings_apart_on_insert BEFORE INSERT ON bookings
WHEN NEW.state IN ('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting')
BEGIN
    SELECT RAISE(ABORT, 'kubecamp: overlap')
    WHERE EXISTS (
        SELECT 1 FROM bookings AS other
        WHERE other.server = NEW.server AND other.place = NEW.place AND other.id <> NEW.id
            AND other.state IN ('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting')
            AND other.starts < NEW.busy_until AND NEW.starts < other.busy_until
    );
END;
CREATE TRIGGER bookings_apart_on_update BEFORE UPDATE OF server, place, starts, ends, busy_until, state ON bookings
WHEN NEW.state IN ('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting')
BEGIN
    SELECT RAISE(ABORT, 'kubecamp: overlap')
    WHERE EXISTS (
        SELECT 1 FROM bookings AS other
        WHERE other.server = NEW.server AND other.place = NEW.place AND other.id <> NEW.id
            AND other.state IN ('offered', 'booked', 'delayed', 'arming', 'active', 'ending', 'saving', 'resetting')
            AND other.starts < NEW.busy_until AND NEW.starts < other.busy_until
    );
END;

-- Windows that were given up, but whose server has not confirmed the plan without them yet.
CREATE TABLE holds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    booking TEXT NOT NULL REFERENCES bookings (id),
    server TEXT NOT NULL REFERENCES servers (id),
    place INTEGER NOT NULL,
    layout TEXT NOT NULL,
    starts INTEGER NOT NULL,
    busy_until INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX holds_by_server ON holds (server, busy_until);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    moment INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT,
    version INTEGER,
    reason TEXT,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_subject ON audit (subject, id);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    moment INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    person TEXT,
    server TEXT,
    payload TEXT NOT NULL
) STRICT;

CREATE TABLE hooks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE TABLE deliveries (
    event INTEGER NOT NULL REFERENCES events (id),
    hook INTEGER NOT NULL REFERENCES hooks (id),
    tries INTEGER NOT NULL DEFAULT 0,
    next_try INTEGER NOT NULL,
    done INTEGER,
    error TEXT,
    PRIMARY KEY (event, hook)
) STRICT;
CREATE INDEX deliveries_open ON deliveries (next_try) WHERE done IS NULL;

-- API tokens, sessions, calendar feeds, agents: only what their text hashes to.
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('api', 'session', 'feed', 'agent', 'link')),
    person TEXT REFERENCES people (id),
    server TEXT REFERENCES servers (id),
    label TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    used INTEGER,
    revoked INTEGER
) STRICT;
CREATE INDEX tokens_by_person ON tokens (person, kind);

CREATE TABLE challenges (
    nonce TEXT PRIMARY KEY,
    person TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT;

CREATE TABLE failures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    who TEXT NOT NULL,
    moment INTEGER NOT NULL
) STRICT;
CREATE INDEX failures_by_who ON failures (who, moment);

CREATE TABLE answers (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer TEXT,
    moment INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT;
