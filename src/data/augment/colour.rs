//! The colour operations of a view, fused: at most two passes over its pixels.
//!
//! Pillow rounds to 8 bits after every operation, so they cannot be merged into one formula; but nothing forces the bytes
//! back to memory. A block of pixels is converted to f32 once, goes through all operations while it is in the first-level
//! cache (every intermediate is an integer held in f32), and is converted back once. Only contrast breaks the chain: it
//! needs the mean grey level of the whole picture as the operations before it left it, which the first pass adds up.

use super::grayscale::luma;
use super::jitter::blend;
use super::simd::{Floor, ROUNDER};
use super::{Adjust, hue, interleave::interleave};

/// Pixels that go through all operations together: 6 KB of f32.
const BLOCK: usize = 512;

/// One operation on pixels, every number ready.
#[derive(Clone, Copy)]
enum Step {
    Constant { level: f32, factor: f32 },
    Saturation { factor: f32 },
    Hue { steps: f32 },
    Grayscale,
}

/// A chain of operations: the four of the jitter and the grey level at most.
#[derive(Clone, Copy, Default)]
struct Chain {
    steps: [Option<Step>; 5],
    len: usize,
}

impl Chain {
    #[inline(always)]
    fn push(&mut self, step: Step) {
        self.steps[self.len] = Some(step);
        self.len += 1;
    }

    /// Adds an adjustment; `mean` is the mean grey level of what contrast is to change.
    #[inline(always)]
    fn push_adjust(&mut self, adjust: Adjust, mean: f32) {
        self.push(match adjust {
            Adjust::Brightness(factor) => Step::Constant { level: 0.0, factor: factor as f32 },
            Adjust::Contrast(factor) => Step::Constant { level: mean, factor: factor as f32 },
            Adjust::Saturation(factor) => Step::Saturation { factor: factor as f32 },
            Adjust::Hue(factor) => Step::Hue { steps: f32::from(hue::steps(factor)) },
        });
    }
}

/// Applies `jitter` and `grayscale` to `planes` (three of one length), in place; with `packed`, also writes the result there
/// as HWC.
#[inline(always)]
pub(super) fn apply(
    jitter: &[Option<Adjust>; 4],
    grayscale: bool,
    mut planes: [&mut [u8]; 3],
    packed: Option<&mut [u8]>,
    floor: impl Floor,
) {
    let mut chain = Chain::default();
    for &adjust in jitter.iter().flatten() {
        let mut mean = 0.0;
        if let Adjust::Contrast(_) = adjust {
            mean = mean_luma(&chain, planes.each_mut().map(|plane| &mut **plane), floor);
            chain = Chain::default();
        }
        chain.push_adjust(adjust, mean);
    }
    if grayscale {
        chain.push(Step::Grayscale);
    }
    finish(&chain, planes, packed, floor);
}

/// The pass before contrast: applies `chain` and gives the mean grey level of the result, rounded half up.
#[inline(always)]
fn mean_luma(chain: &Chain, planes: [&mut [u8]; 3], floor: impl Floor) -> f32 {
    let pixels = planes[0].len();
    let mut block = Block::new();
    let mut sum = 0;
    for (_, [red, green, blue]) in blocks(planes) {
        block.load([red, green, blue]);
        if chain.len > 0 {
            block.run(chain, floor);
            block.store([red, green, blue]);
        }
        sum += block.luma_sum(floor);
    }
    (sum as f64 / pixels as f64 + 0.5).floor() as f32
}

/// The last pass: applies `chain` and writes the result where it is wanted.
#[inline(always)]
fn finish(chain: &Chain, planes: [&mut [u8]; 3], mut packed: Option<&mut [u8]>, floor: impl Floor) {
    if chain.len == 0 && packed.is_none() {
        return;
    }
    let mut block = Block::new();
    for (at, [red, green, blue]) in blocks(planes) {
        if chain.len > 0 {
            block.load([red, green, blue]);
            block.run(chain, floor);
            block.store([red, green, blue]);
        }
        if let Some(packed) = &mut packed {
            let len = red.len();
            interleave([red, green, blue], &mut packed[3 * at..3 * (at + len)]);
        }
    }
}

/// The pixels in blocks: the first one's position, and the three channels.
#[inline(always)]
fn blocks([red, green, blue]: [&mut [u8]; 3]) -> impl Iterator<Item = (usize, [&mut [u8]; 3])> {
    let blocks = red.chunks_mut(BLOCK).zip(green.chunks_mut(BLOCK)).zip(blue.chunks_mut(BLOCK));
    blocks.enumerate().map(|(index, ((red, green), blue))| (index * BLOCK, [red, green, blue]))
}

/// Three channels of pixels, integers in 0..=255 as f32. Loops run over whole blocks, so that their length is a constant;
/// past the end of a shorter one they work on what was there before.
struct Block {
    channels: [[f32; BLOCK]; 3],
    len: usize,
}

impl Block {
    #[inline(always)]
    fn new() -> Self {
        Block { channels: [[0.0; BLOCK]; 3], len: 0 }
    }

    #[inline(always)]
    fn load(&mut self, part: [&[u8]; 3]) {
        self.len = part[0].len();
        for (channel, part) in self.channels.iter_mut().zip(part) {
            for (value, &byte) in channel.iter_mut().zip(part) {
                *value = f32::from(byte);
            }
        }
    }

    #[inline(always)]
    fn store(&self, part: [&mut [u8]; 3]) {
        for (channel, part) in self.channels.iter().zip(part) {
            for (byte, &value) in part.iter_mut().zip(channel) {
                *byte = (value + ROUNDER).to_bits() as u8;
            }
        }
    }

    #[inline(always)]
    fn run(&mut self, chain: &Chain, floor: impl Floor) {
        for step in chain.steps.iter().flatten() {
            match *step {
                Step::Constant { level, factor } => self.constant(level, factor, floor),
                Step::Saturation { factor } => self.saturation(factor, floor),
                Step::Hue { steps } => self.hue(steps, floor),
                Step::Grayscale => self.grayscale(floor),
            }
        }
    }

    #[inline(always)]
    fn constant(&mut self, level: f32, factor: f32, floor: impl Floor) {
        for channel in &mut self.channels {
            for value in channel {
                *value = blend(level, *value, factor, floor);
            }
        }
    }

    #[inline(always)]
    fn saturation(&mut self, factor: f32, floor: impl Floor) {
        let [red, green, blue] = &mut self.channels;
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let level = luma(*red, *green, *blue, floor);
            *red = blend(level, *red, factor, floor);
            *green = blend(level, *green, factor, floor);
            *blue = blend(level, *blue, factor, floor);
        }
    }

    #[inline(always)]
    fn hue(&mut self, steps: f32, floor: impl Floor) {
        let [red, green, blue] = &mut self.channels;
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            (*red, *green, *blue) = hue::rotate((*red, *green, *blue), steps, floor);
        }
    }

    #[inline(always)]
    fn grayscale(&mut self, floor: impl Floor) {
        let [red, green, blue] = &mut self.channels;
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let level = luma(*red, *green, *blue, floor);
            (*red, *green, *blue) = (level, level, level);
        }
    }

    /// The sum of the grey levels.
    #[inline(always)]
    fn luma_sum(&self, floor: impl Floor) -> u64 {
        let [red, green, blue] = self.channels.each_ref().map(|channel| &channel[..self.len]);
        let mut sum = 0u32; // 512 levels of at most 255
        for ((&red, &green), &blue) in red.iter().zip(green).zip(blue) {
            sum += (luma(red, green, blue, floor) + ROUNDER).to_bits() & 0xff;
        }
        u64::from(sum)
    }
}
