//! Number formats of tensors and matrices. Arithmetic is in f32; memory may be bf16.

/// How an element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
}

impl Number {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Number::F32 => 4,
            Number::Bf16 => 2,
        }
    }

    /// Elements from their bytes; exact.
    pub fn load(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Number::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Number::Bf16 => {
                bytes.as_chunks().0.iter().map(|b| f32::from_bits((u16::from_le_bytes(*b) as u32) << 16)).collect()
            }
        }
    }

    /// Bytes of elements, each rounded once, to nearest with ties to even.
    pub fn store(self, values: &[f32]) -> Vec<u8> {
        match self {
            Number::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Number::Bf16 => values.iter().flat_map(|v| bf16(*v).to_le_bytes()).collect(),
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Number::F32 => "f32",
            Number::Bf16 => "bf16",
        }
    }
}

/// The nearest bf16, ties to even; a NaN stays one.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    let round = 0x7fff + (bits >> 16 & 1);
    ((bits + round) >> 16) as u16 // an overflow of the significand carries into the exponent, up to infinity
}

/// The nearest number with TF32's 11 significant bits, ties to even: what a tensor core sees of an f32.
pub fn tf32(x: f32) -> f32 {
    if !x.is_finite() {
        return x;
    }
    let bits = x.to_bits();
    f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for (x, want) in
            [(1.0, 0x3f80), (1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 3.0 / 256.0, 0x3f82), (1.004, 0x3f81), (3.4e38, 0x7f80)]
        {
            assert_eq!(bf16(x), want, "{x}");
        }
        assert_eq!(bf16(f32::NEG_INFINITY), 0xff80);
        assert!(Number::Bf16.load(&bf16(f32::from_bits(0x7f80_0001)).to_le_bytes())[0].is_nan());
    }

    #[test]
    fn tf32_keeps_eleven_bits() {
        let ulp = 1.0 / 1024.0;
        assert_eq!(tf32(1.0 + ulp), 1.0 + ulp);
        assert_eq!(tf32(1.0 + ulp / 2.0), 1.0);
        assert_eq!(tf32(1.0 + 1.5 * ulp), 1.0 + 2.0 * ulp);
        assert_eq!(tf32(-1.0 - 0.6 * ulp), -1.0 - ulp);
        assert!(tf32(f32::MAX).is_infinite());
    }
}
