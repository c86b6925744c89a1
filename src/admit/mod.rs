//! Who may come in: places, sources, rates.

pub(crate) mod places;
