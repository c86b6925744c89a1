//! A simulator: the order of turns under a virtual clock and a fake kernel, from a seed.
//!
//! It is what TigerBeetle's VOPR is to a database: a day of a server in a second, the same each time for the same seed. The
//! policy is the real one ([`Order`], with its shelf, accounts and standing); the channel, the kernel's backlog, the
//! workers, the processor and the clients are models. After each step [`World::audit`] asserts that nothing was lost or
//! served twice, that every bound holds, and that no source with less than its share waits while another exceeds it. The
//! scenes of [`scenes`] are compared second by second; [`seeds`] explores thousands of worlds at random, and keeps those
//! that failed.

mod clients;
mod fairness;
mod random;
mod report;
mod scenes;
mod seeds;
mod server;
mod world;
