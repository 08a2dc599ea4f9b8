//! Entry points that programs may ask for and that are not covered: refused by name, since a program that does not find a
//! function panics without saying which.

use super::{NOT_SUPPORTED, Status};

macro_rules! refused {
    ($($name:ident)*) => { $(
        /// Refuses, whatever its arguments are: the caller takes them back from the stack.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub extern "C" fn $name() -> Status {
            eprintln!(concat!("vgpu: ", stringify!($name), " is not covered by the virtual GPU"));
            NOT_SUPPORTED
        }
    )* };
}

refused! {
    cuCtxCreate_v2 cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2
    cuGraphExecUpdate_v2
    cuLaunchCooperativeKernel cuLaunchKernelEx
    cuMemAllocManaged cuMemAdvise_v2 cuMemPrefetchAsync_v2
    cuMemPoolCreate cuMemPoolDestroy
    cuImportExternalMemory cuDestroyExternalMemory cuExternalMemoryGetMappedBuffer
    cuOccupancyMaxPotentialClusterSize cuOccupancyMaxActiveClusters
}
