//! The cases, by area.

pub mod hostile;
pub mod ids;
pub mod leases;
pub mod lifecycle;
pub mod load;
pub mod missing;
pub mod order;
pub mod roundtrip;
pub mod routing;
pub mod settling;
pub mod sharing;
pub mod window;
