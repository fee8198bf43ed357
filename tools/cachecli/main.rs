//! `cachecli`: the tool for people.

fn main() {}
