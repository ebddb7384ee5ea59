//! A gated short convolution: `out(c * conv(b * x))`, where `b | c | x` is one map of the input.

use super::{Linear, Residual};
use crate::{
    backend::{Backend, Conv, ConvSpec, Tensor, Weight},
    error::Result,
    weights::loader::Loader,
};

/// The layer.
pub struct ShortConv {
    bcx: Linear,
    taps: Weight,
    bias: Option<Weight>,
    out: Linear,
    conv: Conv,
}

impl ShortConv {
    /// `prefix.{in_proj,conv,out_proj}`, with biases if `bias`.
    pub async fn load(loader: &mut Loader<'_>, prefix: &str, spec: ConvSpec, bias: bool, conv: Conv) -> Result<ShortConv> {
        let (name, ConvSpec { cols, taps }) = (|part: &str| format!("{prefix}.{part}"), spec);
        Ok(ShortConv {
            bcx: Linear::load(loader, &name("in_proj"), 3 * cols, cols, bias).await?,
            taps: loader.flat(&name("conv.weight"), &[cols, 1, taps]).await?,
            bias: if bias { Some(loader.vector(&name("conv.bias"), cols, 0.0).await?) } else { None },
            out: Linear::load(loader, &name("out_proj"), cols, cols, bias).await?,
            conv,
        })
    }

    /// `x` with the convolution of its norm added.
    pub fn add_to(&self, b: &mut dyn Backend, around: &Residual, x: Tensor) -> Tensor {
        let bcx = self.bcx.of_normed(b, around.pre.as_ref(), x);
        let y = b.short_conv(self.conv, bcx, self.taps, self.bias);
        around.join(b, &self.out, y, x)
    }
}
