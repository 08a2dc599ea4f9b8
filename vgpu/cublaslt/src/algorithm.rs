//! The ways to compute a product, and the heuristic that lists them.
//!
//! An algorithm is an opaque block of the caller's; what is written into it says for which problem and which alignments it was
//! given, so that using it elsewhere is seen.

use crate::attributes::{Attributes, preference};
use crate::entry::{
    INVALID_VALUE, NOT_INITIALIZED, NOT_SUPPORTED, Refusal, State, entry_points, live, put, refused, unsupported,
};
use crate::problem::{Layouts, Problem};
use cudarc::cublaslt::sys::{cublasLtMatmulAlgo_t, cublasLtMatmulHeuristicResult_t, cublasStatus_t};
use std::ffi::c_int;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A way to compute a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Two halves of k, summed apart in the workspace and then together.
    SplitK,
    /// In the order of k.
    Tiled,
    /// The same for matrices at any address.
    Unaligned,
}

const METHODS: [Method; 3] = [Method::SplitK, Method::Tiled, Method::Unaligned];
/// `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`: halves are summed in the compute type, out of place.
const REDUCTION: u64 = 2;
const MAGIC: u64 = 0x7667_7075_6c74_0001;

impl Method {
    /// Bytes of workspace.
    pub fn workspace(self, p: &Problem) -> u64 {
        if self == Method::SplitK { (2 * p.m * p.n * 4).next_multiple_of(256) } else { 0 }
    }

    /// What the addresses of the matrices must divide by; their leading dimensions too.
    pub fn alignment(self, p: &Problem) -> u64 {
        if self == Method::Unaligned { p.a.elements.number.bytes() } else { 16 }
    }

    /// Whether it can compute the problem with matrices at addresses that divide by these.
    fn fits(self, p: &Problem, aligned: [u64; 4]) -> bool {
        let matrices = [&p.a, &p.b, &p.c, &p.d];
        let whole = self == Method::Unaligned
            || matrices.iter().all(|m| (m.ld * m.elements.number.bytes()).is_multiple_of(self.alignment(p)));
        whole && aligned.iter().all(|a| *a >= self.alignment(p)) && !(self == Method::SplitK && p.k < 2)
    }
}

/// An algorithm as the caller keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    pub method: Method,
    pub workspace: u64,
    /// What the caller said that the addresses of A, B, C and D divide by.
    pub aligned: [u64; 4],
    fingerprint: u64,
}

fn fingerprint(p: &Problem) -> u64 {
    let mut h = DefaultHasher::new();
    (p.m, p.n, p.k, p.tf32, p.epilogue).hash(&mut h);
    for m in [&p.a, &p.b, &p.c, &p.d] {
        (m.elements.number.bytes(), &m.elements.strides, m.by_rows).hash(&mut h);
    }
    h.finish()
}

impl Algorithm {
    fn new(method: Method, p: &Problem, aligned: [u64; 4]) -> Algorithm {
        Algorithm { method, workspace: method.workspace(p), aligned, fingerprint: fingerprint(p) }
    }

    fn encode(&self) -> cublasLtMatmulAlgo_t {
        let aligned =
            u64::from_le_bytes(std::array::from_fn(|i| self.aligned.get(i).map_or(0, |a| a.trailing_zeros() as u8)));
        cublasLtMatmulAlgo_t { data: [MAGIC, self.method as u64, self.workspace, aligned, self.fingerprint, 0, 0, 0] }
    }

    /// The caller's block, if it was given for this problem.
    pub fn decode(from: &cublasLtMatmulAlgo_t, p: &Problem) -> Result<Algorithm, Refusal> {
        let [magic, method, workspace, aligned, stored, ..] = from.data;
        let method = METHODS.into_iter().find(|m| *m as u64 == method);
        let (MAGIC, Some(method)) = (magic, method) else {
            return refused(INVALID_VALUE, "the algorithm was not given by cublasLtMatmulAlgoGetHeuristic");
        };
        if stored != fingerprint(p) {
            return refused(INVALID_VALUE, "the algorithm was given for another problem");
        }
        let aligned = aligned.to_le_bytes();
        let aligned = std::array::from_fn(|i| 1 << aligned[i].min(63));
        Ok(Algorithm { method, workspace, aligned, fingerprint: stored })
    }

    /// The algorithms that fit, the one to be preferred first: it takes a workspace, so that callers show that they give it.
    pub fn list(p: &Problem, workspace: u64, schemes: u64, aligned: [u64; 4]) -> Vec<Algorithm> {
        METHODS
            .into_iter()
            .filter(|m| m.fits(p, aligned) && m.workspace(p) <= workspace)
            .filter(|m| *m != Method::SplitK || schemes & REDUCTION != 0)
            .map(|m| Algorithm::new(m, p, aligned))
            .collect()
    }
}

/// The alignments that a preference promises.
fn promised(preference: &Attributes) -> Result<[u64; 4], Refusal> {
    let aligned: [u64; 4] = std::array::from_fn(|i| preference.value(preference::MIN_ALIGNMENT_BYTES + i as u32));
    match aligned.iter().find(|a| !a.is_power_of_two()) {
        Some(a) => refused(INVALID_VALUE, format!("an alignment of {a} bytes")),
        None => Ok(aligned),
    }
}

/// The problem of an operation descriptor and four layouts.
pub fn problem(s: &State, desc: u64, [a, b, c, d]: [u64; 4]) -> Result<Problem, Refusal> {
    let layout = |handle, what: &str| live(s.layouts.get(handle), &format!("layout of {what}"));
    let layouts = Layouts { a: layout(a, "A")?, b: layout(b, "B")?, c: layout(c, "C")?, d: layout(d, "D")? };
    Problem::new(live(s.descs.get(desc), "operation descriptor")?, &layouts)
}

/// A handle that is none means that the library is not initialised.
pub fn initialised(s: &State, handle: u64) -> Result<(), Refusal> {
    match s.handles.get(handle) {
        Ok(()) => Ok(()),
        Err(stale) => refused(NOT_INITIALIZED, format!("the handle is {stale}")),
    }
}

entry_points! {
    fn cublasLtMatmulAlgoGetHeuristic(
        s, handle: u64, desc: u64, a: u64, b: u64, c: u64, d: u64, preference: u64, requested: c_int,
        results: *mut cublasLtMatmulHeuristicResult_t, returned: *mut c_int,
    ) {
        initialised(s, handle)?;
        let preference = live(s.preferences.get(preference), "preference")?;
        if requested <= 0 || results.is_null() {
            return refused(INVALID_VALUE, format!("{requested} algorithms are requested, with room at {results:?}"));
        }
        // SAFETY: the caller's variable.
        unsafe { put(returned, 0)? };
        let p = match problem(s, desc, [a, b, c, d]) {
            Ok(p) => p,
            // An answer to a question, not a mistake: said, without a finding.
            Err(refusal) if refusal.status == NOT_SUPPORTED => return unsupported(&refusal.detail),
            Err(refusal) => return Err(refusal),
        };
        let workspace = preference.value(preference::MAX_WORKSPACE_BYTES);
        let schemes = preference.value(preference::REDUCTION_SCHEME_MASK);
        let list = Algorithm::list(&p, workspace, schemes, promised(preference)?);
        for (i, algorithm) in list.iter().take(requested as usize).enumerate() {
            let result = cublasLtMatmulHeuristicResult_t {
                algo: algorithm.encode(),
                workspaceSize: algorithm.workspace as usize,
                state: cublasStatus_t::CUBLAS_STATUS_SUCCESS,
                wavesCount: 1.0,
                reserved: [0; 4],
            };
            // SAFETY: the caller has room for as many as it requests.
            unsafe { results.add(i).write(result) };
        }
        let count = list.len().min(requested as usize);
        if count == 0 { return unsupported("no algorithm takes matrices that are aligned so little"); }
        // SAFETY: the caller's variable.
        unsafe { put(returned, count as c_int) }
    }
}
