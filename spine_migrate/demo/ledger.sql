-- What the demonstration knows about its own rows, and the one function that turns a label into a uuid (v4 layout).
-- sha256 of the label, not md5: it is there on every server, FIPS mode included, and Python computes the same bytes.

CREATE SCHEMA IF NOT EXISTS spine_demo;

CREATE OR REPLACE FUNCTION spine_demo.uuid_of(label text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT overlay(overlay(left(encode(sha256(label::bytea), 'hex'), 32) PLACING '4' FROM 13) PLACING 'a' FROM 17)::uuid
$$;

CREATE TABLE spine_demo.awkward_row (
    kind text NOT NULL,
    entity text NOT NULL,
    source_key text NOT NULL,
    fate text NOT NULL,
    PRIMARY KEY (entity, source_key)
);
