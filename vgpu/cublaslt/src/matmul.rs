//! `cublasLtMatmul`: what is wrong with a call, and the product.

use crate::algorithm::{Algorithm, Method, initialised, problem};
use crate::entry::{EXECUTION_FAILED, INVALID_VALUE, Refusal, entry_points, refused};
use crate::problem::{Epilogue, Matrix, Problem};
use cudarc::cublaslt::sys::cublasLtMatmulAlgo_t;
use rayon::prelude::*;
use vgpu_library::abi::Run;
use vgpu_library::driver::{self, Access, Call, Memory, Operand};
use vgpu_library::number::{Number, tf32};
use vgpu_library::product::{Rows, accumulate};
use vgpu_library::strided::Strided;

/// What a workspace's address must divide by.
const WORKSPACE_ALIGNMENT: u64 = 256;

/// Addresses and scalars of a call.
struct Arguments {
    alpha: f32,
    beta: f32,
    /// A, B, C, D.
    matrices: [u64; 4],
    workspace: u64,
    workspace_bytes: u64,
}

const NAMES: [&str; 4] = ["A", "B", "C", "D"];

fn alignment_of(address: u64) -> u64 {
    1 << address.trailing_zeros().min(8)
}

impl Arguments {
    /// Whether C is read.
    fn reads_c(&self) -> bool {
        self.beta != 0.0
    }

    fn check_addresses(&self, p: &Problem, algorithm: &Algorithm) -> Result<(), Refusal> {
        for (i, name) in NAMES.into_iter().enumerate().filter(|(i, _)| *i != 2 || self.reads_c()) {
            let (address, want) = (self.matrices[i], algorithm.aligned[i].max(algorithm.method.alignment(p)));
            if address == 0 {
                return refused(INVALID_VALUE, format!("{name} is null"));
            }
            if !address.is_multiple_of(want) {
                let detail =
                    format!("{name} is at {address:#x}, and the algorithm was asked for with {want} bytes' alignment");
                return refused(INVALID_VALUE, detail);
            }
        }
        if p.epilogue != Epilogue::Default && p.bias == 0 {
            return refused(INVALID_VALUE, "the epilogue needs a bias pointer, and it is null");
        }
        let size = p.d.elements.number.bytes();
        if p.epilogue != Epilogue::Default && !p.bias.is_multiple_of(size) {
            return refused(INVALID_VALUE, format!("the bias is at {:#x}, and its elements have {size} bytes", p.bias));
        }
        Ok(())
    }

    fn check_workspace(&self, algorithm: &Algorithm) -> Result<(), Refusal> {
        let (need, have) = (algorithm.workspace, self.workspace_bytes);
        if have < need {
            return refused(INVALID_VALUE, format!("the algorithm needs a workspace of {need} bytes, not {have}"));
        }
        if need > 0 && self.workspace == 0 {
            return refused(INVALID_VALUE, format!("the workspace of {need} bytes is null"));
        }
        if !self.workspace.is_multiple_of(WORKSPACE_ALIGNMENT) {
            let detail =
                format!("the workspace is at {:#x}, which does not divide by {WORKSPACE_ALIGNMENT}", self.workspace);
            return refused(INVALID_VALUE, detail);
        }
        Ok(())
    }

    /// The device memory that the call touches: A, B, D, and those of C, bias and workspace that it has.
    fn operands(&self, p: &Problem, algorithm: &Algorithm) -> Result<Vec<Operand>, Refusal> {
        let in_place = self.reads_c() && self.matrices[2] == self.matrices[3];
        if in_place && p.c != p.d {
            return refused(INVALID_VALUE, "C and D are at the same address with different layouts");
        }
        let operand = |i: usize, matrix: &Matrix, access| Operand {
            name: NAMES[i].into(),
            address: self.matrices[i],
            access,
            runs: matrix.elements.runs(),
        };
        let vector = |name: &str, address, access, bytes| Operand {
            name: name.into(),
            address,
            access,
            runs: vec![Run { offset: 0, bytes }],
        };
        let result = if in_place { Access::Update } else { Access::Write };
        let mut all = vec![operand(0, &p.a, Access::Read), operand(1, &p.b, Access::Read), operand(3, &p.d, result)];
        if self.reads_c() && !in_place {
            all.push(operand(2, &p.c, Access::Read));
        }
        if p.epilogue != Epilogue::Default {
            let access = if p.epilogue == Epilogue::Bias { Access::Read } else { Access::Write };
            all.push(vector("the bias", p.bias, access, p.epilogue.length(p) * p.d.elements.number.bytes()));
        }
        if algorithm.workspace > 0 {
            all.push(vector("the workspace", self.workspace, Access::Write, algorithm.workspace));
        }
        if self.workspace_bytes > algorithm.workspace && self.workspace != 0 {
            all.push(vector("the stated workspace", self.workspace, Access::Claim, self.workspace_bytes));
        }
        let writes = |o: &Operand| matches!(o.access, Access::Write | Access::Update);
        let claims = |o: &Operand| o.access == Access::Claim;
        for (i, one) in all.iter().enumerate() {
            for other in &all[i + 1..] {
                if (writes(one) || writes(other)) && !claims(one) && !claims(other) && one.overlaps(other) {
                    return refused(INVALID_VALUE, format!("{} and {} overlap", one.name, other.name));
                }
            }
        }
        Ok(all)
    }
}

/// `op(A) op(B)` over a part of k, in its order.
fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], part: std::ops::Range<usize>) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    const ROWS: usize = 16;
    out.par_chunks_mut(ROWS * n).enumerate().for_each(|(i, out)| {
        let rows: Vec<&[f32]> = a[i * ROWS * k..].chunks(k).take(ROWS).map(|row| &row[part.clone()]).collect();
        accumulate(out, n, n, &rows, Rows { values: &b[part.start * n..], pitch: n });
    });
    out
}

/// The call's work, on the memory of its operands.
fn compute(p: &Problem, method: Method, alpha: f32, beta: f32, memory: &[Memory], operands: &Places) {
    let [m, n, k] = [p.m as usize, p.n as usize, p.k as usize];
    let round = |mut values: Vec<f32>| {
        if p.tf32 {
            values.iter_mut().for_each(|v| *v = tf32(*v));
        }
        values
    };
    let a = p.a.elements.gather(&memory[0]);
    let b = p.b.elements.gather(&memory[1]);
    if let (Epilogue::GradientOfA | Epilogue::GradientOfB, Some(to)) = (p.epilogue, operands.bias) {
        let sums: Vec<f32> = match p.epilogue {
            Epilogue::GradientOfA => a.chunks(k).map(|row| row.iter().sum()).collect(),
            _ => (0..n).map(|j| (0..k).map(|l| b[l * n + j]).sum()).collect(),
        };
        memory[to].write(0, &p.d.elements.number.store(&sums));
    }
    let (a, b) = (round(a), round(b));
    let mut out = match (method, operands.workspace) {
        (Method::SplitK, Some(workspace)) => {
            let halves = [product(&a, &b, [m, n, k], 0..k / 2), product(&a, &b, [m, n, k], k / 2..k)].concat();
            let partial = Strided { number: Number::F32, dims: vec![2 * p.m * p.n], strides: vec![1] };
            partial.scatter(&memory[workspace], &halves);
            let (first, second) = halves.split_at(m * n);
            first.iter().zip(second).map(|(x, y)| x + y).collect()
        }
        _ => product(&a, &b, [m, n, k], 0..k),
    };
    let c = operands.c.map(|c| p.c.elements.gather(&memory[c]));
    let bias = match (p.epilogue, operands.bias) {
        (Epilogue::Bias, Some(at)) => {
            let number = p.d.elements.number;
            Some(number.load(&memory[at].read(0, m * number.bytes() as usize)))
        }
        _ => None,
    };
    for (i, value) in out.iter_mut().enumerate() {
        *value *= alpha;
        *value += c.as_ref().map_or(0.0, |c| beta * c[i]);
        *value += bias.as_ref().map_or(0.0, |bias| bias[i / n]);
    }
    p.d.elements.scatter(&memory[2], &out);
}

/// Where the operands that a call may lack are among its memories.
struct Places {
    c: Option<usize>,
    bias: Option<usize>,
    workspace: Option<usize>,
}

impl Places {
    fn of(operands: &[Operand]) -> Places {
        let at = |name: &str| operands.iter().position(|o| o.name == name);
        let in_place = (operands[2].access == Access::Update).then_some(2);
        Places { c: at("C").or(in_place), bias: at("the bias"), workspace: at("the workspace") }
    }
}

/// # Safety
/// `at` is null or a scalar.
unsafe fn scalar(at: *const f32, name: &str) -> Result<f32, Refusal> {
    // SAFETY: by contract.
    match unsafe { at.as_ref() } {
        Some(value) => Ok(*value),
        None => refused(INVALID_VALUE, format!("{name} is null")),
    }
}

/// The caller's algorithm, or the one that the heuristic puts first.
///
/// # Safety
/// `algo` is null or an algorithm.
unsafe fn choose(algo: *const cublasLtMatmulAlgo_t, p: &Problem, args: &Arguments) -> Result<Algorithm, Refusal> {
    // SAFETY: by contract.
    if let Some(algo) = unsafe { algo.as_ref() } {
        return Algorithm::decode(algo, p);
    }
    let list = Algorithm::list(p, args.workspace_bytes, u64::MAX, args.matrices.map(alignment_of));
    list.into_iter().next().map_or_else(|| refused(INVALID_VALUE, "no algorithm takes such addresses"), Ok)
}

entry_points! {
    fn cublasLtMatmul(
        s, handle: u64, desc: u64, alpha: *const f32, a: u64, a_layout: u64, b: u64, b_layout: u64, beta: *const f32,
        c: u64, c_layout: u64, d: u64, d_layout: u64, algo: *const cublasLtMatmulAlgo_t, workspace: u64,
        workspace_bytes: usize, stream: u64,
    ) {
        initialised(s, handle)?;
        let p = problem(s, desc, [a_layout, b_layout, c_layout, d_layout])?;
        // SAFETY: the caller's scalars.
        let (alpha, beta) = unsafe { (scalar(alpha, "alpha")?, scalar(beta, "beta")?) };
        let args =
            Arguments { alpha, beta, matrices: [a, b, c, d], workspace, workspace_bytes: workspace_bytes as u64 };
        // SAFETY: the caller's algorithm.
        let algorithm = unsafe { choose(algo, &p, &args)? };
        args.check_addresses(&p, &algorithm)?;
        args.check_workspace(&algorithm)?;
        let operands = args.operands(&p, &algorithm)?;
        if !driver::stream_exists(stream) {
            return refused(EXECUTION_FAILED, format!("{stream:#x} is no stream"));
        }
        let places = Places::of(&operands);
        let place = format!("{}x{}x{}, {:?}", p.m, p.n, p.k, algorithm.method);
        let (alpha, beta, method) = (args.alpha, args.beta, algorithm.method);
        let work = Box::new(move |memory: &[Memory]| compute(&p, method, alpha, beta, memory, &places));
        match driver::enqueue(stream, Call { name: "cublasLtMatmul", place, operands, work }) {
            Ok(()) => Ok(()),
            Err(error) => refused(EXECUTION_FAILED, format!("the stream takes no work: CUDA error {error}")),
        }
    }
}
