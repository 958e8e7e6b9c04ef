-- Tables with all that an archive has to hold.
CREATE SCHEMA app;
CREATE SCHEMA "Some types";
CREATE FUNCTION app.twice(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE TYPE app.status AS ENUM ('on', 'it''s', E'a\\b', '', 'NULL');
CREATE DOMAIN app.amount AS numeric(12,3) DEFAULT 1.5 CHECK (VALUE >= -1000) CONSTRAINT "not ten" CHECK (VALUE <> 10);
COMMENT ON DOMAIN app.amount IS 'in ''cents''';
CREATE TYPE "Some types"."a point" AS (x integer, "the y" app.status, z text COLLATE "C", w app.amount[]);
COMMENT ON TYPE "Some types"."a point" IS E'two\nlines';
CREATE DOMAIN app.list AS app.status[] NOT NULL;
CREATE TYPE app.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE SEQUENCE app.shared AS bigint START 7 INCREMENT -3 MINVALUE -100 MAXVALUE 100 CACHE 5 CYCLE;

CREATE TABLE app."Odd ""table""; -- name" (
    "A ""key""" integer GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY,
    serial smallserial,
    shared bigint DEFAULT nextval('app.shared'),
    code varchar(10) COLLATE "C" NOT NULL DEFAULT 'it''s',
    "from" app.status DEFAULT 'on'::app.status,
    amount app.amount,
    place "Some types"."a point",
    many "Some types"."a point"[],
    states app.list DEFAULT '{}',
    span app.span,
    spans app.span_multirange,
    "per cent %s {}" numeric(20,5),
    at timestamptz(3) DEFAULT now(),
    doc json,
    twice integer GENERATED ALWAYS AS (app.twice(serial::integer)) STORED,
    during tstzrange,
    bits bit(5),
    CONSTRAINT "one code" UNIQUE (code, "from") INCLUDE (shared) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT apart EXCLUDE USING gist (during WITH &&) WHERE (serial > 0)
);
COMMENT ON TABLE app."Odd ""table""; -- name" IS E'of\nmany ''lines''';
COMMENT ON COLUMN app."Odd ""table""; -- name"."from" IS 'where';
CREATE UNIQUE INDEX "an index" ON app."Odd ""table""; -- name" (lower(code) text_pattern_ops, app.twice(shared::integer) DESC)
    WHERE "from" = 'on'::app.status;
COMMENT ON INDEX app."an index" IS 'for whom';
INSERT INTO app."Odd ""table""; -- name"
    (code, amount, place, many, states, span, spans, "per cent %s {}", at, doc, during, bits)
VALUES
    (E'tab\tx', -1, ROW(1, 'it''s', E'"q", (\\)', '{1.5,NULL}'), ARRAY[ROW(NULL, '', '', NULL)]::"Some types"."a point"[],
     '{"",NULL,"NULL",on}', '[1e-300,2.5)', '{[1,2),[3,NaN]}', 'NaN', 'infinity', '{"b":  1, "a":2,"a":3}',
     '[2020-01-01,2020-02-01)', '10101'),
    (E'\\.', NULL, NULL, '{}', '{}', 'empty', NULL, '1.50000', '0044-03-15 12:00:00+01 BC', ' null ', NULL, NULL),
    (E'\\N', 3, ROW(NULL, NULL, NULL, NULL), NULL, '{it''s}', NULL, '{}', -99, '-infinity', NULL, 'empty', NULL);
-- It does not hold for the rows that are there.
ALTER TABLE app."Odd ""table""; -- name" ADD CONSTRAINT "is ok" CHECK ("per cent %s {}" < 0) NOT VALID;
COMMENT ON CONSTRAINT "is ok" ON app."Odd ""table""; -- name" IS 'why';

CREATE TABLE app.events (
    id bigint NOT NULL, odd integer, day date NOT NULL, note text,
    CONSTRAINT "note ok" CHECK (note <> 'bad'), PRIMARY KEY (id, day),
    CONSTRAINT "to odd" FOREIGN KEY (odd) REFERENCES app."Odd ""table""; -- name" ON DELETE CASCADE
) PARTITION BY RANGE (day);
CREATE INDEX events_note ON app.events (note);
CREATE TABLE app.events_2020 PARTITION OF app.events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')
    PARTITION BY LIST (id);
CREATE TABLE app.events_2020_1 PARTITION OF app.events_2020 FOR VALUES IN (1, 2);
CREATE TABLE app.events_rest (note text DEFAULT 'rest', odd integer, day date NOT NULL, id bigint NOT NULL,
    CONSTRAINT "note ok" CHECK (note <> 'bad'));
ALTER TABLE app.events ATTACH PARTITION app.events_rest DEFAULT;
CREATE INDEX events_rest_own ON app.events_rest (odd);
INSERT INTO app.events VALUES (1, 10, '2020-05-05', 'a'), (2, NULL, '2020-06-06', NULL), (3, 15, '1999-01-01', 'z');

CREATE TABLE app.base (id integer NOT NULL, CONSTRAINT positive CHECK (id > 0));
CREATE TABLE app.child (extra text) INHERITS (app.base);
INSERT INTO app.base VALUES (1);
INSERT INTO app.child VALUES (2, 'two');

CREATE TABLE app.feeds (feed_id integer PRIMARY KEY);
CREATE TABLE app.jobs (
    gone text, id serial PRIMARY KEY, feed_id integer REFERENCES app.feeds, parent integer REFERENCES app.jobs,
    twice integer GENERATED ALWAYS AS (2) STORED
);
ALTER TABLE app.jobs DROP COLUMN gone;
CREATE INDEX jobs_feed ON app.jobs (feed_id);
INSERT INTO app.jobs (parent) VALUES (NULL), (1), (1);

CREATE TABLE app.nothing ();
INSERT INTO app.nothing DEFAULT VALUES;
INSERT INTO app.nothing DEFAULT VALUES;
