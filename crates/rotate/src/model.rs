//! The model: every order of events, breadth-first, through the real [`crate::plan::plan`], [`crate::record::look`] and the
//! record's own writes. One or two controllers with their lease, killed anywhere; label reads that are stale; forged reports;
//! drift; a host that joins; a user of the key that nobody knows of; labels moved, keys made, switched off and deleted by
//! hand; SES late, silent or never; a second place that is not seen, is moved, or is left out of one rotate.toml.
//!
//! What must never be: a counted host, or the published version, with a key that we made dead; a third key; a person's key
//! touched; a key deleted that we did not deactivate. What must always be in reach: the good end (one live key, published,
//! all hosts on it), or a refusal that names what a person has to do; and no circle of our own actions.
//!
//! `cargo test -p relaykey-rotate` walks the small set-ups, `-- --ignored` all of them; `ROTATE_MODEL=NAME` one.

mod search;
mod setups;
mod steps;
mod world;
