//! Tests of the order of turns, apart from it: the model checks use the same files.

mod accounts;
mod lists;
mod own;
mod shelf;
mod standing;
