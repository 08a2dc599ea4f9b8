//! Mirroring. Costs nothing: the resize writes its columns and rows in the opposite order.

/// Which axes of a view are mirrored, after the resize.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Flip {
    /// Left and right change places.
    pub horizontal: bool,
    /// Top and bottom change places.
    pub vertical: bool,
}

impl Flip {
    /// Neither axis.
    pub const NONE: Flip = Flip { horizontal: false, vertical: false };
}
