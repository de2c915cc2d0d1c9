//! `pdpb.PD` on every node: what TiKV's clients ask of a placement driver.
//!
//! `GetMembers` is answered locally; everything else by the placement leader, to which other nodes
//! pass it on.

mod answers;
#[cfg(test)]
mod fuzz;
mod service;
#[cfg(test)]
mod tests;

pub use service::PdService;
