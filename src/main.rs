//! `cached`: one node of a cluster.

fn main() {}
