# Sourced after common.sh: runs steps to the end even if one fails, and adds up what the test runners say.

LOG=$CACHE/test.log
: >"$LOG"
FAILED=()
SKIPPED=()

# step NAME COMMAND...: shows its output and notes a failure. A command that cannot run here says why and returns 77.
step() {
  local name=$1 started=$SECONDS status=0
  shift
  say "$name"
  "$@" 2>&1 | tee -a "$LOG" || status=$?
  case $status in
    0) say "$name: ok ($((SECONDS - started)) s)" ;;
    77) say "$name: skipped" && SKIPPED+=("$name") ;;
    *) say "$name: FAILED" && FAILED+=("$name") ;;
  esac
}

# cargo_tool NAME ARGUMENT...: `cargo fmt` and `cargo clippy` are not part of every toolchain.
cargo_tool() {
  cargo "$1" --version >/dev/null 2>&1 || { echo "there is no cargo $1 in this toolchain" && return 77; }
  cargo "$@"
}

# Private items are documented for who works on them, so links to them are fine.
rustdoc() { RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --quiet --workspace --no-deps --document-private-items; }

static_checks() {
  step "cargo fmt" cargo_tool fmt --all --check
  step "clippy" cargo_tool clippy --quiet --workspace --all-targets -- -D warnings
  step "clippy, wasm" wasm_clippy
  step "rustdoc" rustdoc
  step "tsc, package" node_modules/.bin/tsc -p pkg --noEmit
  step "tsc, page" node_modules/.bin/tsc -p web
  step "tsc, service worker" node_modules/.bin/tsc -p web/sw
}

# sum REGEX: adds the number that ends each match in the log. cargo says "3 passed; 0 failed; 1 ignored", node "# pass 3".
sum() { { grep -aoE "$1" "$LOG" || true; } | { grep -oE '[0-9]+' || true; } | awk '{ n += $1 } END { print n + 0 }'; }

# The last lines: what failed, and the totals of all runners. A step that failed without a failed test counts as one.
totals() {
  local passed failed skipped
  passed=$(($(sum '[0-9]+ passed;') + $(sum '^(#|ℹ) pass [0-9]+')))
  failed=$(($(sum '[0-9]+ failed;') + $(sum '^(#|ℹ) (fail|cancelled) [0-9]+')))
  skipped=$(($(sum '[0-9]+ ignored;') + $(sum '^(#|ℹ) (skipped|todo) [0-9]+') + ${#SKIPPED[@]}))
  ((${#FAILED[@]} <= failed)) || failed=${#FAILED[@]}
  ((${#SKIPPED[@]} == 0)) || say "skipped: $(printf '%s; ' "${SKIPPED[@]}")"
  ((${#FAILED[@]} == 0)) || say "failed: $(printf '%s; ' "${FAILED[@]}")"
  echo "$passed passed, $failed failed, $skipped skipped"
  ((${#FAILED[@]} == 0 && failed == 0 && passed > 0))
}
