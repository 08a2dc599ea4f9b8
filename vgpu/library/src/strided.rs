//! Tensors and matrices in device memory: dimensions with strides.

use crate::abi::Run;
use crate::driver::Memory;
use crate::number::Number;

/// Elements at `sum(index * stride)`, in units of elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strided {
    /// How an element is stored.
    pub number: Number,
    /// Sizes, in the order in which [`Strided::gather`] packs them.
    pub dims: Vec<u64>,
    /// A stride for each.
    pub strides: Vec<u64>,
}

impl Strided {
    /// How many elements.
    pub fn count(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Elements from the first to the last address; 0 if there are none.
    pub fn extent(&self) -> u64 {
        if self.count() == 0 {
            return 0;
        }
        1 + self.dims.iter().zip(&self.strides).map(|(d, s)| (d - 1) * s).sum::<u64>()
    }

    /// The bytes it occupies.
    pub fn runs(&self) -> Vec<Run> {
        if self.count() == 0 {
            return Vec::new();
        }
        let mut axes: Vec<(u64, u64)> =
            self.strides.iter().copied().zip(self.dims.iter().copied()).filter(|(_, d)| *d > 1).collect();
        axes.sort_unstable();
        let mut length = 1; // what the innermost axes cover without a gap
        let mut rest = axes.as_slice();
        while let Some((&(stride, dim), others)) = rest.split_first() {
            if stride != length {
                break;
            }
            (length, rest) = (length * dim, others);
        }
        let mut starts = vec![0];
        for &(stride, dim) in rest.iter().rev() {
            starts = starts.iter().flat_map(|s| (0..dim).map(move |i| s + i * stride)).collect();
        }
        let size = self.number.bytes();
        starts.into_iter().map(|s| Run { offset: s * size, bytes: length * size }).collect()
    }

    /// Whether two indices lead to one address: such a tensor cannot be written.
    pub fn overlaps_itself(&self) -> bool {
        let mut axes: Vec<(u64, u64)> =
            self.strides.iter().copied().zip(self.dims.iter().copied()).filter(|(_, d)| *d > 1).collect();
        axes.sort_unstable();
        let mut extent = 1;
        axes.iter().any(|&(stride, dim)| {
            let inside = stride < extent;
            extent += (dim - 1) * stride;
            inside
        })
    }

    /// Places of all elements, in packed order.
    fn places(&self) -> Vec<usize> {
        let mut places = vec![0];
        for (&dim, &stride) in self.dims.iter().zip(&self.strides) {
            places = places.iter().flat_map(|p| (0..dim as usize).map(move |i| p + i * stride as usize)).collect();
        }
        places
    }

    /// Its elements, packed, the last dimension innermost.
    pub fn gather(&self, memory: &Memory) -> Vec<f32> {
        let all = self.number.load(&memory.read(0, (self.extent() * self.number.bytes()) as usize));
        if self.is_packed() {
            return all;
        }
        self.places().into_iter().map(|p| all[p]).collect()
    }

    /// Stores packed elements, each rounded once; what lies between them stays as it is.
    pub fn scatter(&self, memory: &Memory, values: &[f32]) {
        if self.is_packed() {
            return memory.write(0, &self.number.store(values));
        }
        let size = self.number.bytes() as usize;
        let mut bytes = memory.read(0, self.extent() as usize * size);
        for (element, place) in self.number.store(values).chunks(size).zip(self.places()) {
            bytes[place * size..][..size].copy_from_slice(element);
        }
        memory.write(0, &bytes);
    }

    fn is_packed(&self) -> bool {
        let mut want = 1;
        self.dims.iter().zip(&self.strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == want;
            want *= dim;
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[u64], strides: &[u64]) -> Strided {
        Strided { number: Number::F32, dims: dims.to_vec(), strides: strides.to_vec() }
    }

    #[test]
    fn runs_leave_gaps_out() {
        assert_eq!(tensor(&[2, 3, 4, 5], &[60, 1, 15, 3]).runs(), [Run { offset: 0, bytes: 480 }]);
        let padded = tensor(&[2, 3], &[4, 1]).runs();
        assert_eq!(padded, [Run { offset: 0, bytes: 12 }, Run { offset: 16, bytes: 12 }]);
        assert_eq!(tensor(&[1, 0], &[1, 1]).runs(), []);
    }

    #[test]
    fn overlap_is_seen() {
        assert!(tensor(&[2, 2], &[1, 1]).overlaps_itself());
        assert!(tensor(&[2, 2], &[0, 1]).overlaps_itself());
        assert!(!tensor(&[3, 2], &[1, 3]).overlaps_itself());
        assert!(!tensor(&[1, 2], &[0, 1]).overlaps_itself());
    }
}
