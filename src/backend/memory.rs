//! What backends say of their memory.

/// Memory of a backend's pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of living tensors.
    pub live_bytes: usize,
    /// The most that ever lived.
    pub peak_bytes: usize,
    /// Bytes kept for reuse.
    pub cached_bytes: usize,
    /// Of the living ones, the most that a library's workspaces took at once since the peak was forgotten.
    pub workspace_bytes: usize,
    /// Buffers the pool did not have and had to allocate, since the start: constant in the steady state.
    pub allocations: usize,
}

/// What a tensor takes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Which buffer: two tensors may share one.
    pub buffer: usize,
    /// Type of its elements.
    pub dtype: &'static str,
    /// Bytes, as the pool counts them.
    pub bytes: usize,
}
