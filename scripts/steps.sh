# Sourced after common.sh: runs steps to the end even if one fails, and adds up what the test runners say.

LOG=$CACHE/test.log
: >"$LOG"
FAILED=()

# step NAME COMMAND...: shows its output and notes a failure.
step() {
  local name=$1 started=$SECONDS
  shift
  say "$name"
  if "$@" 2>&1 | tee -a "$LOG"; then
    say "$name: ok ($((SECONDS - started)) s)"
  else
    say "$name: FAILED"
    FAILED+=("$name")
  fi
}

# Private items are documented for who works on them, so links to them are fine.
rustdoc() { RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --quiet --workspace --no-deps --document-private-items; }

static_checks() {
  step "cargo fmt" cargo fmt --all --check
  step "clippy" cargo clippy --quiet --workspace --all-targets -- -D warnings
  step "clippy, wasm" wasm_clippy
  step "rustdoc" rustdoc
  step "tsc, package" node_modules/.bin/tsc -p pkg --noEmit
  step "tsc, page" node_modules/.bin/tsc -p web
}

# sum REGEX: adds the number that ends each match in the log. cargo says "3 passed; 0 failed; 1 ignored", node "# pass 3".
sum() { { grep -aoE "$1" "$LOG" || true; } | grep -oE '[0-9]+' | awk '{ n += $1 } END { print n + 0 }'; }

# The last lines: what failed, and the totals of all runners. A step that failed without a failed test counts as one.
totals() {
  local passed failed skipped
  passed=$(($(sum '[0-9]+ passed;') + $(sum '^(#|ℹ) pass [0-9]+')))
  failed=$(($(sum '[0-9]+ failed;') + $(sum '^(#|ℹ) fail [0-9]+')))
  skipped=$(($(sum '[0-9]+ ignored;') + $(sum '^(#|ℹ) (skipped|todo) [0-9]+')))
  ((${#FAILED[@]} <= failed)) || failed=${#FAILED[@]}
  ((${#FAILED[@]} == 0)) || say "failed: $(printf '%s; ' "${FAILED[@]}")"
  echo "$passed passed, $failed failed, $skipped skipped"
  ((${#FAILED[@]} == 0 && failed == 0 && passed > 0))
}
