//! Transports with a defect, which the suite must find.
