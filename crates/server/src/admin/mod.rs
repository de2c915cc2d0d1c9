//! `cribwork.admin.Admin`: what people and scripts ask, on any node.

mod service;

pub use service::{AdminService, InitHook};
