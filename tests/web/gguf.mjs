// A tiny GGUF, made of the fixture llama_plain: its values are the fixture's, but for the order of q's and k's rows.
import { readFileSync } from "node:fs";

const fixture = `${import.meta.dirname}/../fixtures/tiny/llama_plain`;
const names = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
  "input_layernorm.weight": "attn_norm.weight",
  "post_attention_layernorm.weight": "ffn_norm.weight",
  "self_attn.q_proj.weight": "attn_q.weight",
  "self_attn.k_proj.weight": "attn_k.weight",
  "self_attn.v_proj.weight": "attn_v.weight",
  "self_attn.o_proj.weight": "attn_output.weight",
  "mlp.gate_proj.weight": "ffn_gate.weight",
  "mlp.up_proj.weight": "ffn_up.weight",
  "mlp.down_proj.weight": "ffn_down.weight",
};

function ggufName(name) {
  const [, layer, rest] = /^model\.layers\.(\d+)\.(.*)$/.exec(name) ?? [];
  return layer === undefined ? names[name] : `blk.${layer}.${names[rest]}`;
}

const u32 = (n) => Buffer.from(Uint32Array.of(n).buffer);
const u64 = (n) => Buffer.from(BigUint64Array.of(BigInt(n)).buffer);
const f32 = (n) => Buffer.from(Float32Array.of(n).buffer);
const text = (s) => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)]);
const padded = (bytes) => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 31)]);

/** Its bytes. */
export function tinyGguf() {
  const config = JSON.parse(readFileSync(`${fixture}/config.json`, "utf8"));
  const file = readFileSync(`${fixture}/model.safetensors`);
  const start = 8 + Number(file.readBigUInt64LE());
  const tensors = Object.entries(JSON.parse(file.subarray(8, start))).filter(([name]) => name !== "__metadata__");
  const number = (key, value) => Buffer.concat([text(key), u32(4), u32(value)]);
  const float = (key, value) => Buffer.concat([text(key), u32(6), f32(value)]);
  const metadata = [
    Buffer.concat([text("general.architecture"), u32(8), text("llama")]),
    Buffer.concat([text("general.name"), u32(8), text("Tiny GGUF")]),
    number("llama.vocab_size", config.vocab_size),
    number("llama.context_length", config.max_position_embeddings),
    number("llama.embedding_length", config.hidden_size),
    number("llama.block_count", config.num_hidden_layers),
    number("llama.feed_forward_length", config.intermediate_size),
    number("llama.attention.head_count", config.num_attention_heads),
    number("llama.attention.head_count_kv", config.num_key_value_heads),
    float("llama.rope.freq_base", config.rope_theta ?? 10000),
    float("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps),
  ];
  const table = [];
  const data = [];
  let offset = 0;
  for (const [name, { shape, data_offsets: [from, to] }] of tensors) {
    table.push(text(ggufName(name)), u32(shape.length), ...shape.toReversed().map(u64), u32(0), u64(offset));
    data.push(padded(file.subarray(start + from, start + to)));
    offset += data.at(-1).length;
  }
  const head = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(metadata.length), ...metadata, ...table];
  return Buffer.concat([padded(Buffer.concat(head)), ...data]);
}
