//! The generic address space: where each window starts.
//!
//! Addresses of device memory are numbers of this program's own, not host addresses, and are never given out twice: a
//! freed or made-up address is always recognised as one.

/// Kernel parameters.
pub const PARAM: u64 = 0x1000_0000;
/// Shared memory of a block.
pub const SHARED: u64 = 0x2_0000_0000;
/// Local memory of a thread.
pub const LOCAL: u64 = 0x3_0000_0000;
/// Bytes of the shared and the local window.
pub const SIZE: u64 = 1 << 24;
/// Device memory, up to the end.
pub const GLOBAL: u64 = 0x7f00_0000_0000;
