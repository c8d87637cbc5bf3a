#!/bin/bash
# Remove what the demo left running, and its files.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ -d "$demo" ] || { echo "There is no demo to remove."; exit 0; }
stop_registry open
stop_registry private
if [ -d "$demo/cluster" ]; then cluster down "$demo/cluster"; fi
rm -rf "$demo"
echo "The demo is gone."
