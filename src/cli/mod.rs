//! The command line: a file a command.

pub mod args;
pub mod info;
