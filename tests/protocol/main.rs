//! The store's protocol (`docs/store.md`) as small models, searched through in every order: pulls, collectors, a
//! reader, removal by hand, kills at every step, leases that go stale while their owner is frozen, views of a
//! network file system that are old, a power cut. The protocol as it is shows no violation; with any one of the
//! rules that are marked [core] dropped, the search finds one and prints how it comes about.
//!
//! | model | what it is about | the code |
//! |---|---|---|
//! | `blobs` | one blob between pulls, collectors and a reader | `src/pull/mod.rs`, `src/gc/mod.rs`, `src/store/{look,trash}.rs` |
//! | `roots` | how a root gets its name and loses it | `src/store/{roots,remove}.rs` |
//! | `lists` | marks on roots, and lists that come late | `src/gc/judge.rs`, `src/store/condemned.rs` |
//! | `ingest` | the unfinished file of an older attempt | `src/store/ingest.rs` |
//!
//! Names of steps are names of functions there. Not modelled: torn renames across folders; a file system whose
//! views are older than 15 minutes.
#![allow(clippy::struct_excessive_bools, clippy::needless_range_loop, clippy::print_stdout)]

mod blobs;
mod ingest;
mod lists;
mod roots;
mod search;
