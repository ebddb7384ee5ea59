# Sourced by the other scripts: the project's root, messages, and when something needs doing again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
CACHE=$ROOT/.cache
mkdir -p "$CACHE"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() {
  printf '\033[1merror:\033[0m %s\n' "$*" >&2
  exit 1
}

# outdated OUT IN...: OUT is missing, or a file at or under one of IN is newer.
outdated() {
  local out=$1
  shift
  [[ ! -e $out ]] || [[ -n $(find "$@" -type f -newer "$out" -print -quit 2>/dev/null) ]]
}
