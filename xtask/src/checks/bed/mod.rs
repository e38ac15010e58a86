//! What the checks stand on: programs to start, a place for their files, the database read from outside, a judge.
//!
//! Nothing here knows sagabus's code. It knows its tables, as anyone does who opens the file with `sqlite3`.

pub mod audit;
pub mod backend;
pub mod db;
pub mod facts;
pub mod judge;
pub mod keep;
pub mod place;
pub mod programs;
pub mod signals;
