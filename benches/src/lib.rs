//! The peers tidegate is measured against.
