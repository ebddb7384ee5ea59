// load(), then model.completions.create({ stream }): one chunk a token, the last chunk has none.
export async function create({ pkg, device, threads, precision, url, contextLength = 2048 }) {
  const { load } = await import(pkg);
  let model;
  return {
    async load() { model = await load(location.origin + url, { backend: device, threads, contextLength, ...(precision && { precision }) }); },
    info: () => model.info,
    async generate({ prompt, maxTokens, onToken }) {
      let text = '', tokens = 0, usage;
      const chunks = await model.completions.create({ prompt, stream: true, max_tokens: maxTokens, temperature: 0, ignore_eos: true, reuse_prefix: false, speculative: false });
      for await (const c of chunks) {
        const [{ text: piece, token_ids }] = c.choices;
        if (token_ids.length) { onToken(); tokens += token_ids.length; }
        text += piece;
        usage = c.usage ?? usage;
      }
      const own = usage && { prefill_tok_s: usage.prompt_tokens / usage.prefill_ms * 1e3, decode_tok_s: (usage.completion_tokens - 1) / usage.decode_ms * 1e3 };
      return { text, tokens, promptTokens: usage?.prompt_tokens, own };
    },
    dispose: () => model?.unload(),
  };
}
