//! The methods of [`Backend`] on a CUDA device.

use super::device::Cuda;
use super::lane::{Lane, Pinned, Report};
use super::memory::{Buffer, Scratch};
use super::ops::adam::AdamState;
use super::ops::{batch_norm, binary_entropy, conv2d, linear, nt_xent, pool2d, transfer};
use crate::Result;
use crate::backend::*;

impl Backend for Cuda {
    type Buffer = Buffer;
    type Argmax = Scratch<u8>;
    type AdamState = AdamState;
    type Pixels = Pinned<u8>;
    type Lane = Lane;
    type Report = Report;

    const NAME: &'static str = "cuda";
    /// One computes while the host prepares the other.
    const LANES: usize = 2;

    fn upload(&self, shape: Shape, values: &[f64]) -> Result<Tensor<Self>> {
        transfer::upload(self, shape, values)
    }

    fn download(&self, x: &Tensor<Self>) -> Result<Vec<f64>> {
        transfer::download(self, x)
    }

    fn upload_images(&self, shape: Shape, pixels: &[u8]) -> Result<Tensor<Self>> {
        transfer::upload_images(self, shape, pixels)
    }

    fn scalar(&self, x: &Tensor<Self>) -> Result<f64> {
        transfer::scalar(self, x)
    }

    fn full(&self, shape: Shape, value: f64) -> Result<Tensor<Self>> {
        transfer::full(self, shape, value)
    }

    fn non_finite(&self, x: &Tensor<Self>) -> Result<Option<NonFinite>> {
        transfer::non_finite(self, x)
    }

    fn memory(&self) -> Memory {
        self.device.pool.memory()
    }

    fn conv2d_forward(&self, x: &Tensor<Self>, w: &Tensor<Self>, window: Window) -> Result<Tensor<Self>> {
        conv2d::forward(self, x, w, window)
    }

    fn conv2d_backward_data(
        &self,
        w: &Tensor<Self>,
        dy: &Tensor<Self>,
        x_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>> {
        conv2d::backward_data(self, w, dy, x_shape, window)
    }

    fn conv2d_backward_data_add(
        &self,
        w: &Tensor<Self>,
        dy: &Tensor<Self>,
        dx: &mut Tensor<Self>,
        window: Window,
    ) -> Result<()> {
        conv2d::backward_data_add(self, w, dy, dx, window)
    }

    fn conv2d_backward_filter(
        &self,
        x: &Tensor<Self>,
        dy: &Tensor<Self>,
        w_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>> {
        conv2d::backward_filter(self, x, dy, w_shape, window)
    }

    fn linear_forward(&self, x: &Tensor<Self>, w: &Tensor<Self>, b: Option<&Tensor<Self>>) -> Result<Tensor<Self>> {
        linear::forward(self, x, w, b)
    }

    fn linear_backward_data(&self, w: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        linear::backward_data(self, w, dy)
    }

    fn linear_backward_weight(&self, x: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        linear::backward_weight(self, x, dy)
    }

    fn linear_backward_bias(&self, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        linear::backward_bias(self, dy)
    }

    fn batch_norm_forward(
        &self,
        x: &Tensor<Self>,
        affine: Affine<Self>,
        residual: Option<&Tensor<Self>>,
        running: Option<RunningStats<Self>>,
        views: usize,
        eps: f64,
        activation: Activation,
    ) -> Result<(Tensor<Self>, BatchStats<Self>)> {
        batch_norm::forward(self, x, affine, residual, running, views, eps, activation)
    }

    fn batch_norm_backward(
        &self,
        x: &Tensor<Self>,
        y: &Tensor<Self>,
        dy: Tensor<Self>,
        affine: Affine<Self>,
        stats: &BatchStats<Self>,
        residual: Residual,
        activation: Activation,
    ) -> Result<BatchNormGrads<Self>> {
        batch_norm::backward(self, x, y, dy, affine, stats, residual, activation)
    }

    fn batch_norm_inference(
        &self,
        x: &Tensor<Self>,
        affine: Affine<Self>,
        residual: Option<&Tensor<Self>>,
        mean: &Tensor<Self>,
        var: &Tensor<Self>,
        eps: f64,
        activation: Activation,
    ) -> Result<Tensor<Self>> {
        batch_norm::inference(self, x, affine, residual, [mean, var], eps, activation)
    }

    fn max_pool_forward(&self, x: &Tensor<Self>, window: Window) -> Result<(Tensor<Self>, Scratch<u8>)> {
        pool2d::max_forward(self, x, window)
    }

    fn max_pool_backward(
        &self,
        dy: &Tensor<Self>,
        argmax: &Scratch<u8>,
        x_shape: Shape,
        window: Window,
    ) -> Result<Tensor<Self>> {
        pool2d::max_backward(self, dy, argmax, x_shape, window)
    }

    fn global_avg_pool_forward(&self, x: &Tensor<Self>) -> Result<Tensor<Self>> {
        pool2d::avg_forward(self, x)
    }

    fn global_avg_pool_backward(&self, dy: &Tensor<Self>, x_shape: Shape) -> Result<Tensor<Self>> {
        pool2d::avg_backward(self, dy, x_shape)
    }

    fn sigmoid_forward(&self, x: &Tensor<Self>) -> Result<Tensor<Self>> {
        binary_entropy::sigmoid_forward(self, x)
    }

    fn sigmoid_backward(&self, y: &Tensor<Self>, dy: &Tensor<Self>) -> Result<Tensor<Self>> {
        binary_entropy::sigmoid_backward(self, y, dy)
    }

    fn nt_xent_forward(
        &self,
        z: &Tensor<Self>,
        samples: Samples,
        temperature: f64,
    ) -> Result<(Tensor<Self>, NtXentSaved<Self>)> {
        nt_xent::forward(self, z, samples, temperature)
    }

    fn nt_xent_backward(
        &self,
        saved: &NtXentSaved<Self>,
        dloss: &Tensor<Self>,
        z_shape: Shape,
        samples: Samples,
        temperature: f64,
    ) -> Result<Tensor<Self>> {
        nt_xent::backward(self, saved, dloss, z_shape, samples, temperature)
    }

    fn binary_entropy_forward(&self, logits: &Tensor<Self>) -> Result<Tensor<Self>> {
        binary_entropy::forward(self, logits)
    }

    fn binary_entropy_backward(&self, logits: &Tensor<Self>, dloss: &Tensor<Self>) -> Result<Tensor<Self>> {
        binary_entropy::backward(self, logits, dloss)
    }

    fn weighted_sum(&self, terms: &[&Tensor<Self>], weights: &[f64]) -> Result<Tensor<Self>> {
        transfer::weighted_sum(self, terms, weights)
    }

    fn scale(&self, x: &Tensor<Self>, factor: f64) -> Result<Tensor<Self>> {
        transfer::scale(self, x, factor)
    }

    fn add_assign(&self, x: &mut Tensor<Self>, y: &Tensor<Self>) -> Result<()> {
        transfer::add_assign(self, x, y)
    }

    fn adam_state(&self, steps: u64) -> Result<AdamState> {
        AdamState::new(self, steps)
    }

    fn set_learning_rate(&self, state: &mut AdamState, learning_rate: f64) -> Result<()> {
        state.set_learning_rate(self, learning_rate)
    }

    fn adam(
        &self,
        tensors: impl FnMut(&mut Visit<Self>) -> Result<()>,
        loss: Option<&Tensor<Self>>,
        state: &mut AdamState,
        config: &AdamConfig,
    ) -> Result<()> {
        state.step(self, tensors, loss, config)
    }

    fn keep<'a>(&self, kept: impl Iterator<Item = Kept<'a, Self>>, state: &mut AdamState) -> Result<()>
    where
        Self: 'a,
    {
        state.keep(self, kept)
    }

    fn release(&self, state: &mut AdamState) -> Result<()> {
        state.release(self)
    }

    fn adam_report(&self, state: &AdamState) -> Result<AdamReport> {
        state.report(self)
    }

    fn pixels(&self, bytes: usize) -> Result<Pinned<u8>> {
        self.new_pixels(bytes)
    }

    fn lane(&self, images: Shape) -> Result<Lane> {
        self.new_lane(images)
    }

    fn start(
        &self,
        lane: &mut Lane,
        pixels: &Pinned<u8>,
        work: impl FnMut(Tensor<Self>, &mut Report) -> Result<()>,
    ) -> Result<()> {
        self.start_step(lane, pixels, work)
    }

    fn report(&self, report: &mut Report, losses: [&Tensor<Self>; LOSSES], adam: &AdamState) -> Result<()> {
        self.report_step(report, losses, adam)
    }

    fn finish(&self, lane: &mut Lane) -> Result<StepReport> {
        self.finish_step(lane)
    }
}
