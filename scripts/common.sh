# Sourced by the other scripts: the project's root, messages, and when something needs doing again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
CACHE=$ROOT/.cache
mkdir -p "$CACHE"
# There only where scripts/setup found no Node.js that is new enough.
[[ ! -d $CACHE/node/bin ]] || PATH=$CACHE/node/bin:$PATH

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() {
  printf '\033[1merror:\033[0m %s\n' "$*" >&2
  exit 1
}

# Where llvmpipe, Vulkan in software, is installed for this processor; nothing where it is not.
lavapipe() {
  local icd
  for icd in /usr/share/vulkan/icd.d/lvp_icd{."$(uname -m)",}.json; do
    [[ ! -f $icd ]] || { echo "$icd" && return; }
  done
}

# outdated OUT IN...: OUT is missing, or a file at or under one of IN is newer.
outdated() {
  local out=$1
  shift
  [[ ! -e $out ]] || [[ -n $(find "$@" -type f -newer "$out" -print -quit 2>/dev/null) ]]
}
