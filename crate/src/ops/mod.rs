//! What can be computed. An op is one file: its formula, a plain reference that every backend must agree with, and the
//! random cases that show it; its WGSL kernel lies beside it under the same name.

pub mod activate;
pub mod add;
pub mod attention;
pub mod check;
pub mod embed;
pub mod experts;
pub mod gate;
pub mod kernel;
pub mod layer_norm;
pub mod matmul;
pub mod mean_rows;
pub mod mix;
pub mod rms_norm;
pub mod rope;
pub mod route;
pub mod sample;
pub mod scale;
pub mod scale_columns;
pub mod score;
pub mod short_conv;
pub mod softcap;
