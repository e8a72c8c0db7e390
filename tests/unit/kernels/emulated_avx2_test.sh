#!/bin/sh
# Runs every kernel of the AVX2 unit on an emulated processor that knows nothing newer: an instruction that is not
# AVX2's, there or in code that all units share, is SIGILL. usage: emulated_avx2_test.sh QEMU TESTS_FOLDER
# QEMU may be empty: then the test is skipped.
if [ ! -x "$1" ]; then
  echo "skipped: no qemu-x86_64 (Debian's qemu-user, which tools/install_dependencies installs)"
  exit 77
fi
qemu=$1 folder=$2
emulate() {  # test program, filter
  echo "== $1 $2"
  "$qemu" -cpu Haswell "$folder/$1" --gtest_brief=1 --gtest_filter="$2"
}
export DOVETAIL_EXPECTED_TABLES="scalar avx2"
emulate tables_test '*' || exit 1
emulate matmul_test '*EveryKernelOnce*:QuantizeTest.*' || exit 1
emulate elementwise_test '*' || exit 1
emulate attention_test 'KvAppendTest.*:AttentionTest.EveryShapeOnce' || exit 1
