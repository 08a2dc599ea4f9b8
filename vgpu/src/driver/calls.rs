//! What a program asked of the driver, counted by kind.

/// Calls since they were last taken. A call counts once it succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)] // crosses to the program that asks
pub struct Calls {
    /// Device memory: `cuMemAlloc`, `cuMemAllocAsync`, `cuMemAllocFromPoolAsync`.
    pub allocations: u64,
    /// Their releases.
    pub frees: u64,
    /// Page-locked memory: `cuMemHostAlloc`.
    pub host_allocations: u64,
    /// Kernels put on a stream; those that a capture records are not among them.
    pub launches: u64,
    /// Graphs put on a stream.
    pub graph_launches: u64,
    /// Copies put on a stream.
    pub copies: u64,
    /// Fills put on a stream.
    pub fills: u64,
    /// Whatever makes the host wait: `cuStreamSynchronize`, `cuEventSynchronize`, `cuCtxSynchronize`, copies to pageable memory,
    /// copies that are not asynchronous, and releases that wait for all streams (`cuMemFree`, `cuMemFreeHost`).
    pub synchronisations: u64,
    /// Modules loaded.
    pub modules: u64,
    /// Graphs instantiated.
    pub instantiations: u64,
}
