#!/bin/sh
# Fails if an instruction-set unit exports anything but its one entry: a weak copy of a shared inline function
# that was compiled with AVX-512 could be the copy that the linker keeps for every caller.
status=0
for object in "$@"; do
  exported=$(nm -C --defined-only --extern-only "$object" | grep -v 'DW.ref.__gxx_personality_v0' \
    | sed 's/^[0-9a-f]* *//')
  case "$exported" in
    "T dovetail::kernels::"*"Table()") ;;
    *) status=1; echo "$object exports more than its table:"; echo "$exported" ;;
  esac
  if [ "$(echo "$exported" | wc -l)" -ne 1 ]; then
    status=1; echo "$object: one symbol expected:"; echo "$exported"
  fi
done
exit $status
