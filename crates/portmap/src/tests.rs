//! Every verb through the dispatcher, with the real tools, each test in a network namespace of its own.

mod backends;
mod faults;
mod leftovers;
mod machine;
