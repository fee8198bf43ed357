//! Who judges the judges: histories known to be good or bad, and exhaustive searches.

#[path = "sim/checkers/mod.rs"]
mod checkers;

#[path = "checkers/linearizability.rs"]
mod linearizability;
#[path = "checkers/observations.rs"]
mod observations;
