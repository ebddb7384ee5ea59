//! The values that a GGUF's blocks stand for by ggml's definition, without the engine's own packing: a package rounds the products of
//! K-quants' two-level scales to f16, and f32 references do not.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use futures_util::{StreamExt, stream};
use half::f16;
use openweights::{
    engine::Model,
    quant::Format,
    weights::{
        files::Memory,
        gguf::{self, Parsed},
        import::{self, Options},
        package,
    },
};

use crate::{
    gguf_writer::{Gguf, GgufTensor},
    load, reference,
};

/// The model of the file at `path` on the reference backend, with its K-quants in f32.
pub fn model(path: &Path) -> Model {
    let bytes = without_k_quants(path).to_bytes().1;
    let (len, mut memory) = (bytes.len() as u64, Memory::default());
    let checkpoint = pollster::block_on(async {
        // Not all at once: what was received and not yet read is moved with every block.
        let stream = stream::iter(bytes.chunks(1 << 20).map(|chunk| Ok(chunk.to_vec()))).boxed_local();
        let manifest = import::gguf(stream, len, Options::default(), &mut memory, &mut |_, _| {}).await?;
        package::open(&manifest, Box::new(memory)).await
    });
    load(&checkpoint.expect("it is imported"), reference()).expect("the model loads")
}

/// The file at `path` with its tensors in Q4_K and Q6_K written as f32.
fn without_k_quants(path: &Path) -> Gguf {
    let mut file = File::open(path).expect("the file");
    let len = file.metadata().expect("a length").len();
    let mut prefix = Vec::new();
    file.by_ref().take(32 << 20).read_to_end(&mut prefix).expect("the first bytes");
    let Parsed::Header(header) = gguf::parse(&prefix, len).expect("a header") else { panic!("a longer header") };
    let metadata = header.metadata.keys().map(|key| (key.to_owned(), header.metadata.get(key).expect("a value").clone())).collect();
    let mut tensors = Vec::new();
    for tensor in &header.tensors {
        let mut data = vec![0; tensor.len as usize];
        file.seek(SeekFrom::Start(tensor.offset)).and_then(|_| file.read_exact(&mut data)).expect("the tensor's bytes");
        let values = match tensor.format {
            Format::Q4K => Some(data.chunks_exact(144).flat_map(q4_k).collect::<Vec<f32>>()),
            Format::Q6K => Some(data.chunks_exact(210).flat_map(q6_k).collect()),
            _ => None,
        };
        let kind = if values.is_some() { 0 } else { tensor.format.ggml().id };
        let data = values.map_or(data, |values| values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let shape = tensor.shape.iter().map(|&d| d as u64).collect();
        tensors.push(GgufTensor { name: tensor.name.clone(), shape, kind, data });
    }
    Gguf { version: 3, metadata, tensors }
}

fn half_at(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// `d * scale * q - dmin * minimum`, 8 groups of 32; two groups share 32 bytes of nibbles, scales and minima have 6 bits.
fn q4_k(block: &[u8]) -> Vec<f32> {
    let (d, dmin, packed, nibbles) = (half_at(block), half_at(&block[2..]), &block[4..16], &block[16..]);
    let six = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => ((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4)),
    };
    let mut out = Vec::with_capacity(256);
    for group in 0..8 {
        let (scale, minimum) = six(group);
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let bytes = &nibbles[group / 2 * 32..][..32];
        out.extend(bytes.iter().map(|b| scale * f32::from(if group % 2 == 0 { b & 15 } else { b >> 4 }) - minimum));
    }
    out
}

/// `d * scale * (q - 32)`, 16 groups of 16: the low 4 bits of `q` in the first 128 bytes, the high 2 in the next 64.
fn q6_k(block: &[u8]) -> Vec<f32> {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half_at(&block[208..]));
    let element = |i: usize| {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[64 * half + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        let bits = high[32 * half + l] >> (2 * quarter) & 3;
        d * f32::from(scales[i / 16] as i8) * (f32::from(nibble | (bits << 4)) - 32.0)
    };
    (0..256).map(element).collect()
}
