//! Every format against the blocks and values of ggml's own Python package.

use futures_util::{StreamExt, stream};
use half::f16;
use openweights::{
    quant::{Format, Plane},
    weights::{
        files::Memory,
        gguf::Value,
        import::{self, Options},
        package,
    },
};
use openweights_tests::gguf_writer::{Gguf, GgufTensor};

/// A row: its ggml blocks and their values.
struct Row {
    blocks: Vec<u8>,
    values: Vec<f32>,
}

fn golden() -> Vec<(Format, Vec<Row>)> {
    let golden = openweights_tests::json("quant/golden.json");
    let bytes = |hex: &serde_json::Value| {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let row = |row: &serde_json::Value| Row {
        blocks: bytes(&row["blocks"]),
        values: bytes(&row["f32"]).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
    };
    let rows = |entry: &serde_json::Value| entry["rows"].as_array().unwrap().iter().map(row).collect();
    golden.as_array().unwrap().iter().map(|e| (Format::parse(e["format"].as_str().unwrap()).unwrap(), rows(e))).collect()
}

/// Most that each element may differ from ggml's. Where ggml's scale is the product of two, ours is that product rounded to f16: with
/// `w = scale * raw + minimum` that is `2^-11 * (|scale * raw| + |minimum|)`, which is what the row gives with positive scales; the
/// square of it is for our rounded scales in place of ggml's. Elsewhere nothing is lost.
fn bound(format: Format, values: &[u8], scales: &[u8], cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; cols];
    if matches!(format, Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq4Xs) {
        let positive: Vec<u8> = scales.chunks_exact(2).flat_map(|s| [s[0], s[1] & 0x7f]).collect();
        format.unpack_row(values, &positive, &mut out);
    }
    out.iter().map(|v| v.abs() * (f32::powi(2.0, -11) + f32::powi(2.0, -21))).collect()
}

#[test]
fn blocks_unpack_to_the_values_that_ggml_gives() {
    let golden = golden();
    assert_eq!(golden.len(), Format::ALL.len());
    for format in Format::ALL {
        let rows = &golden.iter().find(|g| g.0 == format).unwrap().1;
        assert!(rows.len() >= if format.packs() { 2 } else { 1 });
        for row in rows {
            let cols = row.values.len();
            assert_eq!(row.blocks.len(), format.ggml_row_bytes(cols));
            let (mut values, mut scales) = (Vec::new(), Vec::new());
            format.split_ggml_row(&row.blocks, &mut values, &mut scales).unwrap();
            assert_eq!(values.len(), format.row_bytes(Plane::Values, cols), "{}", format.name());
            assert_eq!(scales.len(), format.row_bytes(Plane::Scales, cols), "{}", format.name());
            let mut out = vec![0.0; cols];
            format.unpack_row(&values, &scales, &mut out);
            let bound = bound(format, &values, &scales, cols);
            for (i, ((ours, ggml), bound)) in out.iter().zip(&row.values).zip(bound).enumerate() {
                assert!((ours - ggml).abs() <= bound, "{} element {i}: {ours} for {ggml}, bound {bound}", format.name());
            }
        }
    }
}

#[test]
fn a_scale_too_large_for_f16_is_refused() {
    for (format, scale_at) in [(Format::Q4K, 0), (Format::Q4K, 2), (Format::Q5K, 0), (Format::Q6K, 208), (Format::Iq4Xs, 0)] {
        let mut row = golden().into_iter().find(|g| g.0 == format).unwrap().1.remove(0).blocks;
        row[scale_at..scale_at + 2].copy_from_slice(&f16::MAX.to_le_bytes());
        let error = format.split_ggml_row(&row, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), "invalid_file", "{}", format.name());
    }
    // The others keep whatever is there.
    for format in Format::ALL.into_iter().filter(|f| f.planes() == *f && *f != Format::Q6K) {
        let row = vec![0xff; format.ggml_row_bytes(256)];
        format.split_ggml_row(&row, &mut Vec::new(), &mut Vec::new()).unwrap();
    }
}

/// A llama of three layers of width 256, whose matrices take turns in the formats; all rows of a matrix are the golden one.
fn gguf_of_all_types(golden: &[(Format, Vec<Row>)]) -> Gguf {
    let integers = [
        ("vocab_size", 256),
        ("context_length", 128),
        ("embedding_length", 256),
        ("block_count", 3),
        ("feed_forward_length", 256),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 4),
        ("rope.dimension_count", 64),
    ];
    let mut metadata = vec![("general.architecture".to_owned(), Value::String("llama".into()))];
    metadata.extend(integers.map(|(key, value)| (format!("llama.{key}"), Value::Integer(value))));
    metadata.push(("llama.attention.layer_norm_rms_epsilon".into(), Value::Float(1e-5)));
    let mut tensors = Vec::new();
    let mut turns = golden.iter().cycle();
    let mut add = |name: String| {
        let norm = name.contains("norm");
        let (format, rows) = if norm { &golden[0] } else { turns.next().unwrap() };
        let shape = if norm { vec![256] } else { vec![256, 256] };
        let data = rows[0].blocks.repeat(if norm { 1 } else { 256 });
        tensors.push(GgufTensor { name, shape, kind: format.ggml().id, data });
    };
    add("token_embd.weight".into());
    for layer in 0..3 {
        for part in ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"] {
            add(format!("blk.{layer}.{part}.weight"));
        }
    }
    add("output_norm.weight".into());
    Gguf { version: 3, metadata, tensors }
}

#[test]
fn every_type_is_kept_by_the_import() {
    let golden = golden();
    let bytes = gguf_of_all_types(&golden).to_bytes().1;
    let (len, mut memory, mut seen) = (bytes.len() as u64, Memory::default(), Vec::new());
    let stream = stream::iter([Ok(bytes)]).boxed_local();
    let checkpoint = pollster::block_on(async {
        let manifest = import::gguf(stream, len, Options::default(), &mut memory, &mut |_, _| {}).await?;
        package::open(&manifest, Box::new(memory)).await
    })
    .unwrap();
    for (name, info) in checkpoint.tensors.iter().filter(|(_, info)| info.shape.len() == 2) {
        let format = info.format;
        let row = &golden.iter().find(|g| g.0 == format).unwrap().1[0];
        let (mut values, mut scales) = (Vec::new(), Vec::new());
        format.split_ggml_row(&row.blocks, &mut values, &mut scales).unwrap();
        for (plane, expected) in [(Plane::Values, values), (Plane::Scales, scales)] {
            let stored = pollster::block_on(checkpoint.read_rows(info, plane, 0, 256)).unwrap();
            assert!(stored == expected.repeat(256), "{name}, {} {plane:?}", format.name());
        }
        seen.push(format);
    }
    assert!(Format::ALL.iter().all(|format| seen.contains(format)), "{seen:?}");
}
